"""What a target's result says, and what follows if there is none. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from chalicelib.domain.states import TERMINAL, Reason, Status, expired_message
from chalicelib.domain.targets import Refusal
from chalicelib.domain.versions import NEEDED_VERSION

# A worker begins no claim after the deadline. A claim that began just before it may take some time, and
# clocks may differ. After this many more seconds, a target without a result will never get one.
EXPIRY_GRACE_SECONDS = 120


class Failure(NamedTuple):
    """Why a target failed: for programs, and for people."""

    reason: Reason
    message: str


def has_succeeded(status: str, inspect: Mapping[str, Any]) -> bool:
    """Whether the command ended with exit code 0. A finished result has the engine's inspect."""
    return status == Status.FINISHED and inspect["ExitCode"] == 0


def has_failed(status: str, inspect: Mapping[str, Any]) -> bool:
    """Whether the target is over and did not succeed."""
    return status in TERMINAL and not has_succeeded(status, inspect)


def explain_refusal(node_id: str, refusal: Refusal) -> Failure:
    """The failure of a target on a node that could not run it when the job was started."""
    if refusal.reason == Reason.WORKER_OUTDATED:
        message = (
            f"the worker of node {node_id} has version {refusal.version}, and this needs version "
            f"{NEEDED_VERSION}; update the worker, then start the job again"
        )
    else:
        message = (
            f"no worker has announced node {node_id}; "
            "check the NodeId, and that a worker runs for this node"
        )
    return Failure(Reason(refusal.reason), message)


def explain_expiry(age_seconds: float, deadline_seconds: int) -> Failure | None:
    """The failure of a target without a result, by its execution's age; None if it may still start."""
    if age_seconds <= deadline_seconds + EXPIRY_GRACE_SECONDS:
        return None
    return Failure(Reason.EXPIRED, expired_message(deadline_seconds))
