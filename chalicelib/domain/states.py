"""What can become of a target: its statuses, the reasons of failures, the legal moves. Pure."""

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


# STARTING is the absence of a result, so it is no key here: the first write of a result is a creation.
MOVES: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.RUNNING, Status.FINISHED, Status.RUNNING_FAILED}),
    Status.RUNNING: frozenset({Status.FINISHED, Status.RUNNING_FAILED}),
}

FIRST = frozenset({Status.CREATED, Status.CREATE_FAILED})
TERMINAL = frozenset({Status.FINISHED, Status.CREATE_FAILED, Status.RUNNING_FAILED})


def sources(target: Status) -> list[Status]:
    """The statuses from which a result may move to `target`."""
    return [status for status, targets in MOVES.items() if target in targets]


def repeated_message(first: str) -> str:
    """What is said of a target whose container is another target's; `first` is how that one spells it."""
    return f"this container is the target {first} already; name each container once"


def expired_message(deadline: int) -> str:
    """What is said of a target that nobody took up in time; `deadline` in seconds."""
    return f"no worker took this target up within {deadline} s; it will not run"
