"""A job in requests and answers."""

import re
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.clients.sealing import require_size
from chalicelib.config import MAX_LOG_BYTES
from chalicelib.domain import labels
from chalicelib.domain.errors import InvalidRequest, require
from chalicelib.domain.words import require_words
from chalicelib.schemas.pages import PageSize, decode_next
from chalicelib.schemas.values import ExecutorId, JobId

MAX_ENV = 100
MAX_ENV_BYTES = 16 * 1024
MAX_SECRETS = 32

_USER = re.compile(r"[\w.][\w.-]*\$?(:[\w.][\w.-]*\$?)?", re.ASCII)
_ENV = re.compile(r"[^=\s\x00]+=[^\x00]*")


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
                "absent: the stored ones stay; an element of `*` only: the stored one of that length.",
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
                "worker's own limit. 0: only that one. In an edit, absent: the stored one stays.",
            ),
        ]
        | UnsetType
    ) = UNSET

    def check(self) -> None:
        """Raises InvalidRequest for what the types cannot check; normalizes names."""
        self.AppName = _label("AppName", self.AppName.strip(), 128)
        self.Name = _label("Name", self.Name.strip(), 64)
        if self.ServiceName:
            self.ServiceName = _label("ServiceName", self.ServiceName, 128)
        require_words(self.Cmd)
        require(
            not self.User or _USER.fullmatch(self.User) is not None,
            "User must be user, uid, user:group or uid:gid, such as root or 1000:1000, or empty",
        )
        self._check_env()
        require_size(_bytes(self.SecretArgs or []))
        for name in self.__struct_fields__:
            _refuse_nul(name, getattr(self, name))

    def _check_env(self) -> None:
        for index, variable in enumerate(self.Env):
            require(
                _ENV.fullmatch(variable) is not None,
                f"Env[{index}] must be NAME=value, without white space in the name or NUL characters",
            )
        require(_bytes(self.Env) <= MAX_ENV_BYTES, "Env must have at most 16384 bytes together")


class JobAnswer(Struct):
    """A job as every answer shows it: its secret arguments as masks."""

    JobId: JobId
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
    LogBytes: Annotated[int, Meta(description="0: only the worker's own limit.")]
    Executors: Annotated[
        list[ExecutorId], Meta(description="Its newest 100 starts, the oldest first.")
    ]


class JobsRequest(Struct, kw_only=True):
    """Which jobs are asked for: all at once, or a page of them if there is a Limit or a Next."""

    AppName: str | None = None
    Limit: PageSize | None = None
    Next: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest for a Next that no page has."""
        if self.Next is not None:
            decode_next(self.Next)


class JobsPage(Struct):
    """Jobs, each application's by name. Next asks for those after them; null: there are none."""

    Jobs: list[JobAnswer]
    Next: str | None = None


def _label(field: str, text: str, longest: int) -> str:
    name = labels.normalize(text)
    require(
        1 <= len(name) <= longest, f"{field} must have 1 to {longest} characters after trimming"
    )
    if wrong := labels.find_fault(name):
        raise InvalidRequest(f"{field} {wrong}")
    return name


def _refuse_nul(name: str, value: Any) -> None:
    """Raises InvalidRequest for a text with a NUL, also in a list: no command takes one."""
    if isinstance(value, str):
        require("\0" not in value, f"{name} must not hold a NUL character")
    elif isinstance(value, list):
        for index, element in enumerate(value):
            _refuse_nul(f"{name}[{index}]", element)


def _bytes(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)
