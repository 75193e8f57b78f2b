"""Requests in, answers out: their shapes and limits, as the HTTP contract has them."""

import codecs
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.clients.secrets import check_size
from chalicelib.config import MAX_LOG_BYTES
from chalicelib.domain import labels
from chalicelib.domain.errors import InvalidRequest
from chalicelib.domain.states import Reason
from chalicelib.domain.words import split

MAX_ENV = 100
MAX_ENV_BYTES = 16 * 1024
MAX_SECRETS = 32
MAX_TARGETS = 1000

_USER = re.compile(r"[\w.][\w.-]*\$?(:[\w.][\w.-]*\$?)?", re.ASCII)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_ENV = re.compile(r"[^=\s\x00]+=[^\x00]*")
_NODE_ID = re.compile(r"[A-Za-z0-9:-]*")
# What an engine calls a container: it becomes part of paths (the engine's API, the log's key).
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NEXT = re.compile(r"[0-9]{16}-[0-9a-f]{8}")

# Descriptions and `extra_json_schema` below are for the OpenAPI document; they check nothing.

_NodeId = Annotated[
    str,
    # A thousand of the longest targets must fit into one item of DynamoDB.
    Meta(
        min_length=1,
        max_length=80,
        extra_json_schema={"pattern": f"^{_NODE_ID.pattern}$"},
        description="The Swarm NodeID, or the engine's ID where it is in no swarm.",
    ),
]
_ContainerId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        extra_json_schema={"pattern": f"^{_CONTAINER_ID.pattern}$"},
    ),
]
_Time = Annotated[float, Meta(description="Seconds since 1970.")]

T = TypeVar("T", bound=Struct)


class JobRequest(Struct, kw_only=True):
    """The body of a create or an edit."""

    AppName: Annotated[
        str,
        Meta(
            description="1 to 128 characters after trimming.",
            extra_json_schema={"pattern": r"\S"},
        ),
    ]
    Name: Annotated[
        str,
        Meta(
            description="1 to 64 characters after trimming, unique within AppName.",
            extra_json_schema={"pattern": r"\S"},
        ),
    ]
    Cmd: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="Split into words as a POSIX shell does, run without a shell.",
        ),
    ]
    ServiceName: Annotated[
        str,
        Meta(
            max_length=128,
            description="The service that the job is for: a bound token's starts run only there.",
        ),
    ] = ""
    Privileged: bool = False
    User: Annotated[
        str,
        Meta(
            max_length=128,
            description="user, uid, user:group or uid:gid; empty: the container's own.",
            extra_json_schema={"pattern": f"^({_USER.pattern})?$"},
        ),
    ] = ""
    Env: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"pattern": f"^{_ENV.pattern}$"})]],
        Meta(
            max_length=MAX_ENV,
            description="NAME=value, 16 KiB together; stored and shown in plain text.",
        ),
    ] = []
    SecretArgs: (
        Annotated[
            list[str],
            Meta(
                max_length=MAX_SECRETS,
                description="Each is one argument after those of Cmd; 3 KiB together. In an edit, "
                "absent: the stored ones stay; an element of `*` alone: the stored one of that length.",
            ),
        ]
        | UnsetType
    ) = UNSET

    LogBytes: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=MAX_LOG_BYTES,
                description="How much output each target's log takes, beside the last MiB; it lowers the "
                "worker's own limit. 0: the worker's alone. In an edit, absent: the stored one stays.",
            ),
        ]
        | UnsetType
    ) = UNSET

    def check(self) -> None:
        """Raises InvalidRequest for what the types do not tell; brings names into their one form."""
        self.AppName = _label("AppName", self.AppName.strip(), 128)
        self.Name = _label("Name", self.Name.strip(), 64)
        if self.ServiceName:
            self.ServiceName = _label("ServiceName", self.ServiceName, 128)
        check_command(self.Cmd)
        _require(
            not self.User or _USER.fullmatch(self.User) is not None,
            "User must be user, uid, user:group or uid:gid, such as root or 1000:1000, or empty",
        )
        self._check_env()
        check_size(_bytes(self.SecretArgs or []))
        for name in self.__struct_fields__:
            _refuse_nul(name, getattr(self, name))

    def _check_env(self) -> None:
        for index, variable in enumerate(self.Env):
            _require(
                _ENV.fullmatch(variable) is not None,
                f"Env[{index}] must be NAME=value, without white space in the name or NUL characters",
            )
        _require(_bytes(self.Env) <= MAX_ENV_BYTES, "Env must have at most 16384 bytes together")


class Target(Struct, frozen=True):
    """One container on one node."""

    ContainerId: _ContainerId
    NodeId: _NodeId


class StartRequest(Struct):
    """The body of a start."""

    Target: Annotated[list[Target], Meta(min_length=1, max_length=MAX_TARGETS)]

    def check(self) -> None:
        """Raises InvalidRequest for an id that can be none, and where a container stands twice."""
        seen = set()
        for index, target in enumerate(self.Target):
            _require(
                _NODE_ID.fullmatch(target.NodeId) is not None,
                f"Target[{index}].NodeId must be a Swarm NodeID or an engine's ID: "
                "letters, digits, : and -",
            )
            _require(
                _CONTAINER_ID.fullmatch(target.ContainerId) is not None,
                f"Target[{index}].ContainerId must be a container's id or name: a letter or digit, then "
                "letters, digits, _, . and -",
            )
            _require(
                target.ContainerId not in seen,
                f"Target[{index}].ContainerId {target.ContainerId} stands twice; name it once",
            )
            seen.add(target.ContainerId)


_JobId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
_ExecutorId = Annotated[
    str,
    Meta(description="The start time in seconds.", pattern=r"^[0-9]{1,12}\.[0-9]{6}$"),
]


class JobAnswer(Struct):
    """A job as every answer shows it: its secret arguments as masks."""

    JobId: _JobId
    AppName: str
    ServiceName: str
    Name: str
    Cmd: str
    Privileged: bool
    User: str
    Env: list[str]
    SecretArgs: Annotated[
        list[Annotated[str, Meta(pattern=r"^\**$")]],
        Meta(description="As many `*` as the secret has characters."),
    ]
    LogBytes: Annotated[int, Meta(description="0: the worker's own limit alone.")]
    Executors: Annotated[list[_ExecutorId], Meta(description="Its starts, the oldest first.")]


class ExecutionAnswer(Struct):
    """What became of one start: a result per target, in the targets' order."""

    JobId: _JobId
    ExecutorId: _ExecutorId
    CreateTime: _Time
    # As they were stored: plain dicts, which need no check.
    Target: list[dict[str, str]]
    # Each in one of the shapes of RESULTS. They are built as plain dicts, since whatever fields an
    # engine's inspect has are handed on.
    Result: list[dict[str, Any]]
    Total: Annotated[int, Meta(description="Targets.")]
    Succeeded: Annotated[int, Meta(description="Targets that ended with exit code 0.")]
    Failed: Annotated[
        int, Meta(description="Targets that ended otherwise; the rest, if any, is under way.")
    ]


class ErrorAnswer(Struct):
    """Every refusal's body: the id is for programs, the message for people."""

    id: str
    message: str


class _Result(TypedDict):
    ContainerId: str
    NodeId: str


class StartingResult(_Result):
    """Accepted; no worker has taken the target up yet."""

    Status: Literal["STARTING"]


class UnderWayResult(_Result):
    """The engine knows the command, or runs it."""

    Status: Literal["CREATED", "RUNNING"]
    ID: str
    StartTime: NotRequired[_Time]


class ProcessConfig(TypedDict):
    """The command as the engine has it."""

    entrypoint: str
    arguments: Annotated[list[str], Meta(description="Secret arguments are masked.")]
    tty: bool
    privileged: NotRequired[bool]
    user: NotRequired[str]


class Dropped(TypedDict):
    """What a log that became too long lacks."""

    Bytes: Annotated[int, Meta(ge=1, description="So many bytes are missing.")]
    After: Annotated[int, Meta(ge=1, description="After so many bytes of the log.")]


class _Output(_Result):
    Output: Annotated[str, Meta(description="The end of stdout and stderr as they came.")]
    OutputSize: Annotated[int, Meta(ge=0, description="Bytes of the whole log.")]
    OutputTruncated: Annotated[bool, Meta(description="Output is only the end.")]
    OutputIncomplete: NotRequired[
        Annotated[bool, Meta(description="Some of the output may be missing, also from the log.")]
    ]
    OutputDropped: NotRequired[Dropped]
    StartTime: NotRequired[_Time]
    EndTime: NotRequired[_Time]


class FinishedResult(_Output):
    """The engine reported an exit code; all fields of its own exec inspect stand here too."""

    Status: Literal["FINISHED"]
    ID: str
    ContainerID: str
    ExitCode: Annotated[int, Meta(description="0 is success, all else is failure.")]
    Running: bool
    Pid: int
    ProcessConfig: ProcessConfig
    OpenStdin: bool
    OpenStdout: bool
    OpenStderr: bool
    CanRemove: bool
    DetachKeys: str
    ArgumentsTruncated: NotRequired[
        Annotated[bool, Meta(description="The arguments were emptied to keep the answer short.")]
    ]


class CreateFailedResult(_Result):
    """The command never ran."""

    Status: Literal["CREATE_FAILED"]
    E: Annotated[str, Meta(description="What went wrong, for people.")]
    Reason: Reason
    EndTime: NotRequired[_Time]


class RunningFailedResult(_Output):
    """How the command ended is not known; it may have run."""

    Status: Literal["RUNNING_FAILED"]
    E: Annotated[str, Meta(description="What went wrong, for people.")]
    Reason: Reason
    ID: str


RESULTS = (
    StartingResult,
    UnderWayResult,
    FinishedResult,
    CreateFailedResult,
    RunningFailedResult,
)


_Seconds = Annotated[float, Meta(ge=0, le=9_999_999_999)]


class AuditRequest(Struct, kw_only=True):
    """Which entries of the audit are asked for; times are seconds since 1970."""

    AppName: str | None = None
    # DynamoDB refuses to look for a key of more than 2 KB.
    JobId: Annotated[str, Meta(max_length=36)] | None = None
    Since: _Seconds | None = None
    Until: _Seconds | None = None
    # Where the page before ended.
    Next: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest for a Next that is none; brings the name into its one form."""
        _require(
            self.Next is None or _NEXT.fullmatch(self.Next) is not None,
            "Next must be the Next of the page before, as it stands there",
        )
        self.AppName = self.AppName and labels.normal(self.AppName.strip())


class TokenRights(Struct):
    """Which token was made or revoked, and what it is good for."""

    Id: str
    Role: str
    Apps: list[str]
    MayRunAsRoot: bool


class AuditAnswer(Struct, kw_only=True, omit_defaults=True):
    """One entry of the audit; what does not apply is left out."""

    Time: _Time
    Action: str
    Actor: str
    Name: str
    TokenId: str | None = None
    SourceIp: str | None = None
    RequestId: str | None = None
    AppName: str | None = None
    MovedFrom: str | None = None
    JobId: str | None = None
    ExecutorId: str | None = None
    Targets: int | None = None
    Fields: list[str] | None = None
    Token: TokenRights | None = None


class AuditPage(Struct):
    """Entries, the newest first; Next asks for those after them, null: there are none."""

    Entries: list[AuditAnswer]
    Next: str | None = None


def parse_query(parameters: Mapping[str, str], shape: type[T]) -> T:
    """The request that the query string holds; empty values mean the same as absent ones.

    Raises InvalidRequest, saying which parameter is wrong and what would be right.
    """
    given = {name: value for name, value in parameters.items() if value}
    try:
        request = msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_in_our_words(error)) from None
    request.check()  # type: ignore[attr-defined]
    return request


def parse(body: bytes, shape: type[T]) -> T:
    """The request that the body holds.

    Raises InvalidRequest, saying which field is wrong and what would be right.
    """
    try:
        request = msgspec.json.decode(_known(body, shape), type=shape)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(_in_our_words(error)) from None
    request.check()  # type: ignore[attr-defined]
    return request


def _known(body: bytes, shape: type[Struct]) -> bytes:
    """An object of those of the body's keys that the shape has, but for nulls, which are as absent.

    Whatever the others hold is not read, so a number that is too large for us may stand there.
    """
    text = body.removeprefix(codecs.BOM_UTF8)
    text.decode()  # what is skipped would not be checked
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    names = given.keys() & set(shape.__struct_fields__)
    return msgspec.json.encode(
        {name: given[name] for name in names if bytes(given[name]) != b"null"}
    )


def _in_our_words(error: Exception) -> str:
    """msgspec's message, its path as the API spells it: `Env[3]` for `$.Env[...]`."""
    if isinstance(error, msgspec.ValidationError):
        text, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        if missing := _MISSING.fullmatch(text):
            return f"{'.'.join(filter(None, (field, missing[1])))} is required"
        return f"{field}: {text}" if field else text
    return f"the body is not valid JSON in UTF-8: {error}"


def _label(field: str, text: str, longest: int) -> str:
    name = labels.normal(text)
    _require(
        1 <= len(name) <= longest, f"{field} must have 1 to {longest} characters after trimming"
    )
    if wrong := labels.fault(name):
        raise InvalidRequest(f"{field} {wrong}")
    return name


def check_command(command: str) -> None:
    """Raises InvalidRequest for a Cmd that does not split into words."""
    try:
        split(command)
    except ValueError as error:
        raise InvalidRequest(
            f"Cmd does not split into words as a POSIX shell splits them: {error}"
        ) from None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequest(message)


def _refuse_nul(name: str, value: Any) -> None:
    """Raises InvalidRequest for a text with a NUL, also in a list: no command takes one."""
    if isinstance(value, str):
        _require("\0" not in value, f"{name} must not hold a NUL character")
    elif isinstance(value, list):
        for index, element in enumerate(value):
            _refuse_nul(f"{name}[{index}]", element)


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)
