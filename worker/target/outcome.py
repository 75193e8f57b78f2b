"""How a target can end, as values: one module finds out, another one stores it."""

from dataclasses import dataclass

from chalicelib.domain.ends import End
from chalicelib.domain.errors import SecretsUnreadable
from chalicelib.domain.exec_inspect import Inspect
from chalicelib.domain.results import Failure
from chalicelib.domain.states import Reason
from worker.engine.errors import Refusal


@dataclass(frozen=True)
class Ended:
    """How a command ended: what the engine says of its exec, or why there is no exit code."""

    end: Inspect | Failure
    # Whether some of its output may never have reached us.
    output_incomplete: bool


@dataclass(frozen=True)
class NotStarted:
    """The exec was made and never started: a worker that adopts it may start it."""


@dataclass(frozen=True)
class LoggedOutput:
    """What is kept of an output: its end in the result, and all of it in S3 if that is longer."""

    # Bytes of the output that are kept; None if nobody knows.
    size: int | None = None
    end: bytes | None = None
    # What a log that became too long lacks; None if it lacks nothing.
    dropped: dict[str, int] | None = None
    # Whether the log lacks some of what reached us.
    incomplete: bool = False


@dataclass(frozen=True)
class StoredEnd:
    """A target's end as it is stored, whoever stored it, and what counting it needs."""

    end: End
    # The target's part of its execution, and how many targets that has.
    part: int
    part_size: int
    expires_at: int


def explain_error(error: Refusal | SecretsUnreadable) -> Failure:
    """The failure that this error means for its target."""
    if isinstance(error, SecretsUnreadable):
        return Failure(Reason.SECRETS_UNREADABLE, error.message)
    return Failure(error.reason, str(error))
