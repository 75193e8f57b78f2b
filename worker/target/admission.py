"""Whether a command may run in a container, and as which user: asks the engine what `rights` needs."""

import re

from chalicelib.domain.states import Reason
from worker.engine.client import Engine
from worker.engine.errors import Refusal
from worker.target import rights
from worker.target.command import Command
from worker.target.rights import Inspect, Mounted

_PASSWD = "/etc/passwd"
# An engine takes these for a number, even if a user has such a name.
_DIGITS = re.compile(r"[0-9]+")
_WITH_ROOT = "or start the job with a token that has the right to run as root (made with --root)"


def admit(engine: Engine, command: Command, container: Inspect) -> str:
    """The user to make the exec with: the one that was checked, as a number.

    For a starter that may run as root, it is the job's own User, unchecked. Raises Refusal (`forbidden`)
    if the starter has no right to this. Raises Unreachable.
    """
    if command.own_containers_only:
        _require_own(command, container)
    if command.may_run_as_root:
        return command.user
    mounted = _look_at_mounts(engine, container)
    if ways := rights.find_ways_out(container, mounted, engine.paths):
        raise _forbidden(
            f"the container {', '.join(ways)}: this gives access to its node; "
            f"choose a container without it, {_WITH_ROOT}"
        )
    return _require_no_root(engine, command, container)


def _require_own(command: Command, container: Inspect) -> None:
    if rights.belongs(container, command.app_name, command.service_name):
        return
    service = f", service {command.service_name}" if command.service_name else ""
    raise _forbidden(
        f"by its labels the container is not one of the application {command.app_name}{service}; choose "
        "one that is. Only a token for all applications may choose others, and none if "
        "OWN_CONTAINERS_ONLY is on"
    )


def _look_at_mounts(engine: Engine, container: Inspect) -> Mounted:
    mounts = container["Mounts"]
    names = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
    volumes = {name: engine.inspect_volume(name) for name in names}
    shown = [mount["Destination"] for mount in mounts if rights.find_sources(mount, volumes)]
    # A link on the node may lead to a socket or to its folder, whatever the link's name is.
    sockets = (place for place in shown if engine.holds_socket(container["Id"], place))
    return Mounted(volumes, frozenset(sockets))


def _require_no_root(engine: Engine, command: Command, container: Inspect) -> str:
    if command.privileged:
        raise _forbidden(f"the job is Privileged: set Privileged to false, {_WITH_ROOT}")
    user = command.user or container["Config"].get("User") or ""
    name, colon, group = user.partition(":")
    number = 0 if name in ("", "root") else _find_uid(engine, container, name)
    if not number:
        raise _forbidden(_why_root(command, name, number))
    return f"{number}{colon}{group}"


def _find_uid(engine: Engine, container: Inspect, name: str) -> int | None:
    if _DIGITS.fullmatch(name):
        return rights.parse_uid(name)
    passwd = engine.read_file(container["Id"], _PASSWD)
    return None if passwd is None else rights.find_uid(name, passwd)


def _why_root(command: Command, name: str, number: int | None) -> str:
    whose = "the job's User" if command.user else "the job has no User, and the container's own"
    if number is None:
        what = f"{whose}, {name}, may be root: the container's {_PASSWD} does not exclude it"
    else:
        what = f"{whose} is root" if name in ("", "root", "0") else f"{whose}, {name}, is root"
    return f"{what}: set the job's User to one that is not root, such as 1000, {_WITH_ROOT}"


def _forbidden(message: str) -> Refusal:
    return Refusal(Reason.FORBIDDEN, message)
