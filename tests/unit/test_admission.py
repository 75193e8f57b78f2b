"""Which command may run in which container: what the engine is asked, and what a refusal says."""

from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.domain.states import Reason
from worker.engine.client import Engine
from worker.engine.errors import Refusal
from worker.engine.paths import EnginePaths
from worker.target.admission import admit
from worker.target.command import Command


def command(**fields: Any) -> Command:
    defaults: dict[str, Any] = {
        "line": "true",
        "secrets": [],
        "env": [],
        "user": "",
        "privileged": False,
        "may_run_as_root": False,
        "app_name": "2048",
        "service_name": "",
        "own_containers_only": False,
        "created": 0,
        "expires": 0,
        "tail": 1,
    }
    return Command(**defaults | fields)


def container(user: str = "", **more: Any) -> dict[str, Any]:
    return {"Id": "c1", "Config": {"User": user}, "HostConfig": {}, "Mounts": [], **more}


@pytest.fixture
def engine() -> Any:
    fake = create_autospec(Engine, instance=True)
    fake.paths = EnginePaths()
    fake.read_file.return_value = b"root:x:0:0::/:\napp:x:1000:1000::/:\nboss:x:0:0::/:\n"
    fake.holds_socket.return_value = False
    return fake


@pytest.mark.parametrize(
    ("asked", "image", "made"),
    [
        ("app", "", "1000"),
        ("app:staff", "", "1000:staff"),
        ("1000:0", "root", "1000:0"),
        ("77", "", "77"),
        ("", "app", "1000"),
        ("", "app:staff", "1000:staff"),
        ("app", "root", "1000"),
    ],
)
def test_the_exec_has_the_number_that_was_checked(
    engine: Any, asked: str, image: str, made: str
) -> None:
    assert admit(engine, command(user=asked), container(image)) == made


@pytest.mark.parametrize(
    ("asked", "image", "said"),
    [
        ("", "", "the job has no User, and the container's own is root"),
        ("", "root", "the job has no User, and the container's own is root"),
        ("", "boss", "the container's own, boss, is root"),
        ("", "nobody", "the container's own, nobody, may be root"),
        ("", ":staff", "the container's own is root"),
        ("root", "app", "the job's User is root"),
        ("00:app", "app", "the job's User, 00, is root"),
        ("boss", "app", "the job's User, boss, is root"),
        ("nobody", "app", "the job's User, nobody, may be root"),
        ("4294967296", "app", "4294967296, may be root"),
    ],
)
def test_whoever_is_root_or_may_be_is_refused(
    engine: Any, asked: str, image: str, said: str
) -> None:
    with pytest.raises(Refusal, match=said) as refusal:
        admit(engine, command(user=asked), container(image))
    assert refusal.value.reason == Reason.FORBIDDEN
    assert "made with --root" in str(refusal.value)


def test_a_passwd_that_cannot_be_read_leaves_nobody_certain(engine: Any) -> None:
    engine.read_file.return_value = None
    with pytest.raises(Refusal, match="app, may be root"):
        admit(engine, command(user="app"), container())


def test_a_number_needs_no_passwd(engine: Any) -> None:
    assert admit(engine, command(user="1000"), container()) == "1000"
    engine.read_file.assert_not_called()


def test_a_privileged_job_is_refused_whoever_its_user_is(engine: Any) -> None:
    with pytest.raises(Refusal, match="Privileged"):
        admit(engine, command(user="app", privileged=True), container())


def test_with_the_right_to_root_nothing_is_resolved(engine: Any) -> None:
    as_good_as_root = container(HostConfig={"Privileged": True})
    given = command(user="boss", privileged=True, may_run_as_root=True)
    assert admit(engine, given, as_good_as_root) == "boss"
    assert engine.mock_calls == []


def test_all_that_leads_out_is_named(engine: Any) -> None:
    host = {"Privileged": True, "PidMode": "host"}
    with pytest.raises(Refusal, match="is privileged, shares the node's pid namespace: this gives"):
        admit(engine, command(user="app"), container(HostConfig=host))


def test_the_engine_is_asked_only_of_mounts_that_show_the_node(engine: Any) -> None:
    mounts = [
        {"Type": "volume", "Name": "plain", "Source": "/d", "Destination": "/plain"},
        {"Type": "volume", "Name": "bound", "Source": "/d", "Destination": "/bound"},
        {"Type": "bind", "Source": "/srv/app", "Destination": "/app"},
        {"Type": "tmpfs", "Source": "", "Destination": "/tmp"},
    ]
    options = {"plain": {}, "bound": {"type": "none", "o": "bind", "device": "/srv/link"}}
    engine.inspect_volume.side_effect = lambda name: {"Driver": "local", "Options": options[name]}
    assert admit(engine, command(user="app"), container(Mounts=mounts)) == "1000"
    assert [call.args for call in engine.holds_socket.call_args_list] == [
        ("c1", "/bound"),
        ("c1", "/app"),
    ]
    engine.holds_socket.side_effect = lambda id, path: path == "/bound"
    with pytest.raises(Refusal, match="mounts a socket of its node at /bound"):
        admit(engine, command(user="app"), container(Mounts=mounts))


def test_a_bound_starter_may_use_only_its_own_containers(engine: Any) -> None:
    labels = {"com.docker.stack.namespace": "2048", "com.docker.swarm.service.name": "2048_web"}
    own = container("app")
    own["Config"]["Labels"] = labels
    # The right to run as root does not open other applications.
    bound = {"own_containers_only": True, "may_run_as_root": True}
    assert admit(engine, command(**bound), own) == ""
    assert admit(engine, command(**bound, service_name="2048_web"), own) == ""
    with pytest.raises(Refusal, match="not one of the application 2048, service 2048_db"):
        admit(engine, command(**bound, service_name="2048_db"), own)
    with pytest.raises(Refusal, match="not one of the application other;") as refusal:
        admit(engine, command(**bound, app_name="other"), own)
    assert refusal.value.reason == Reason.FORBIDDEN
