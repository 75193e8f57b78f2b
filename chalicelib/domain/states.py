"""What can become of a target: its statuses, the legal moves, the reasons of failures. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of a result, as the API spells it."""

    STARTING = "STARTING"
    CREATED = "CREATED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    CREATE_FAILED = "CREATE_FAILED"
    RUNNING_FAILED = "RUNNING_FAILED"


class Reason(StrEnum):
    """Why a target failed. This set is closed: `docs/results.md` explains each."""

    NODE_UNKNOWN = "node_unknown"
    WORKER_OUTDATED = "worker_outdated"
    EXPIRED = "expired"
    CONTAINER_NOT_FOUND = "container_not_found"
    CONTAINER_NOT_RUNNING = "container_not_running"
    CONTAINER_PAUSED = "container_paused"
    CONTAINER_REPEATED = "container_repeated"
    CONTAINER_GONE = "container_gone"
    COMMAND_INVALID = "command_invalid"
    SECRETS_UNREADABLE = "secrets_unreadable"
    FORBIDDEN = "forbidden"
    ENGINE_ERROR = "engine_error"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What is known of a target that failed for a reason."""

    # The statuses that a result with this reason may have.
    statuses: frozenset[Status]
    # Whether the command may have run. With CREATE_FAILED it never did.
    may_have_run: bool
    # Whether the container is gone or stopped: then an exec that was made in it has ended too.
    container_is_away: bool = False


_BEFORE = frozenset({Status.CREATE_FAILED})
_AFTER = frozenset({Status.RUNNING_FAILED})

# Code that has to know what a reason means asks this table. A new reason is a new row.
MEANINGS = {
    Reason.NODE_UNKNOWN: Meaning(statuses=_BEFORE, may_have_run=False),
    Reason.WORKER_OUTDATED: Meaning(statuses=_BEFORE, may_have_run=False),
    Reason.EXPIRED: Meaning(statuses=_BEFORE | _AFTER, may_have_run=False),
    Reason.CONTAINER_NOT_FOUND: Meaning(
        statuses=_BEFORE, may_have_run=False, container_is_away=True
    ),
    Reason.CONTAINER_NOT_RUNNING: Meaning(
        statuses=_BEFORE, may_have_run=False, container_is_away=True
    ),
    # The engine refuses to start an exec in a paused container.
    Reason.CONTAINER_PAUSED: Meaning(statuses=_BEFORE | _AFTER, may_have_run=False),
    # The container runs the command once, for the target that came first.
    Reason.CONTAINER_REPEATED: Meaning(statuses=_BEFORE, may_have_run=False),
    Reason.CONTAINER_GONE: Meaning(statuses=_AFTER, may_have_run=True, container_is_away=True),
    Reason.COMMAND_INVALID: Meaning(statuses=_BEFORE, may_have_run=False),
    Reason.SECRETS_UNREADABLE: Meaning(statuses=_BEFORE | _AFTER, may_have_run=True),
    Reason.FORBIDDEN: Meaning(statuses=_BEFORE, may_have_run=False),
    # An engine that fails in the middle of a start may have started the exec, and it may be over.
    Reason.ENGINE_ERROR: Meaning(statuses=_BEFORE | _AFTER, may_have_run=True),
    Reason.LOST: Meaning(statuses=_AFTER, may_have_run=True),
}

# A target is STARTING while it has no result, so that is not a key here: the first write makes the
# result.
MOVES: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.RUNNING, Status.FINISHED, Status.RUNNING_FAILED}),
    Status.RUNNING: frozenset({Status.FINISHED, Status.RUNNING_FAILED}),
}

TERMINAL = frozenset({Status.FINISHED, Status.CREATE_FAILED, Status.RUNNING_FAILED})


def sources(target: Status) -> list[Status]:
    """The statuses from which a result may move to `target`."""
    return [status for status, targets in MOVES.items() if target in targets]


def repeated_message(first: str) -> str:
    """The message if a container is another target already; `first` is that target's ContainerId."""
    return f"this container is already the target {first}; name each container once"


def expired_message(deadline: int) -> str:
    """The message of a target that nobody took up in time; `deadline` in seconds."""
    return f"no worker took this target up within {deadline} s; it will not run"
