"""Requests in, answers out: their shapes and limits, as the HTTP contract has them."""

import re
import shlex
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.errors import InvalidRequest
from chalicelib.secrets import check_size

MAX_ENV = 100
MAX_ENV_BYTES = 16 * 1024
MAX_SECRETS = 32
MAX_TARGETS = 1000

_USER = re.compile(r"[\w.][\w.-]*\$?(:[\w.][\w.-]*\$?)?", re.ASCII)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_ENV = re.compile(r"[^=\s\0]+=[^\0]*")
_NodeId = Annotated[str, Meta(min_length=1, max_length=128)]
# What an engine calls a container: it becomes part of paths (the engine's API, the log's key).
_ContainerId = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
]

T = TypeVar("T", bound=Struct)


class JobRequest(Struct, kw_only=True):
    """The body of a create or an edit."""

    AppName: Annotated[str, Meta(min_length=1, max_length=128)]
    Name: str
    Cmd: Annotated[str, Meta(min_length=1, max_length=4096)]
    ServiceName: Annotated[str, Meta(max_length=128)] = ""
    Privileged: bool = False
    User: Annotated[str, Meta(max_length=128)] = ""
    Env: Annotated[list[str], Meta(max_length=MAX_ENV)] = []
    SecretArgs: Annotated[list[str], Meta(max_length=MAX_SECRETS)] | UnsetType = UNSET

    def check(self) -> None:
        """Raises InvalidRequest for what the types alone do not tell; trims the name."""
        self.Name = self.Name.strip()
        _require(1 <= len(self.Name) <= 64, "Name must have 1 to 64 characters after trimming")
        for field in ("AppName", "Name", "ServiceName", "Cmd"):
            _require("\0" not in getattr(self, field), f"{field} must not hold a NUL character")
        _check_command(self.Cmd)
        _require(
            not self.User or _USER.fullmatch(self.User) is not None,
            "User must be user, uid, user:group or uid:gid, such as root or 1000:1000, or empty",
        )
        self._check_env()
        self._check_secrets()

    def _check_env(self) -> None:
        for index, variable in enumerate(self.Env):
            _require(
                _ENV.fullmatch(variable) is not None,
                f"Env[{index}] must be NAME=value, without white space in the name or NUL characters",
            )
        _require(_bytes(self.Env) <= MAX_ENV_BYTES, "Env must have at most 16384 bytes together")

    def _check_secrets(self) -> None:
        secrets = self.SecretArgs or []
        for index, secret in enumerate(secrets):
            _require("\0" not in secret, f"SecretArgs[{index}] must not hold a NUL character")
        check_size(_bytes(secrets))


class Target(Struct, frozen=True):
    """One container on one node."""

    ContainerId: _ContainerId
    NodeId: _NodeId


class StartRequest(Struct):
    """The body of a start."""

    Target: Annotated[list[Target], Meta(min_length=1, max_length=MAX_TARGETS)]

    def check(self) -> None:
        """Raises InvalidRequest where a container stands twice."""
        seen = set()
        for index, target in enumerate(self.Target):
            _require(
                target.ContainerId not in seen,
                f"Target[{index}].ContainerId {target.ContainerId} stands twice; name it once",
            )
            seen.add(target.ContainerId)


class JobAnswer(Struct):
    """A job as every answer shows it: its secret arguments as masks."""

    JobId: str
    AppName: str
    ServiceName: str
    Name: str
    Cmd: str
    Privileged: bool
    User: str
    Env: list[str]
    SecretArgs: list[str]
    Executors: list[str]


class ExecutionAnswer(Struct):
    """What became of one start: a result per target, in the targets' order."""

    JobId: str
    ExecutorId: str
    CreateTime: float
    Target: list[dict[str, str]]
    Result: list[dict[str, Any]]
    # Targets: all of them, those that ended with exit code 0, those that ended otherwise. The others,
    # if any, are under way.
    Total: int
    Succeeded: int
    Failed: int


def parse(body: bytes, shape: type[T]) -> T:
    """The request that the body holds.

    Raises InvalidRequest, saying which field is wrong and what would be right.
    """
    try:
        data = msgspec.json.decode(body)
        if not isinstance(data, dict):
            raise InvalidRequest("the body must be a JSON object")
        request = msgspec.convert(_without_nulls(data), shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(_in_our_words(error)) from None
    request.check()  # type: ignore[attr-defined]
    return request


def _in_our_words(error: Exception) -> str:
    """msgspec's message, its path as the API spells it: `Env[3]` for `$.Env[...]`."""
    if isinstance(error, msgspec.ValidationError):
        text, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        if missing := _MISSING.fullmatch(text):
            return f"{'.'.join(filter(None, (field, missing[1])))} is required"
        return f"{field}: {text}" if field else text
    return f"the body is not valid JSON in UTF-8: {error}"


def _without_nulls(value: Any) -> Any:
    """The value without keys that are null: they mean the same as absent ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _check_command(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InvalidRequest(
            f"Cmd does not split into words: {str(error).lower()}; it is split as a POSIX shell does"
        ) from None
    _require(bool(words and words[0]), "Cmd must name a command")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequest(message)


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)
