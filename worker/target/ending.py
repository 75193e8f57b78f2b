"""How a target's end is stored: its log first, with patience, and whatever the services say meanwhile."""

import time
from typing import Any

import structlog

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.clients.queues import TargetMessage
from chalicelib.domain.states import TERMINAL, Reason, Status
from chalicelib.store.models import Result
from worker import metrics
from worker.engine.client import Refusal
from worker.output.spool import Spool
from worker.patience import insist, insist_on_log
from worker.target.command import Command

log = structlog.stdlib.get_logger(__name__)

# Between two looks for the end that a living owner stores.
_LOOK = 2.0

# How a command ended: the engine's inspect, or why there is none.
End = dict[str, Any] | Refusal


def complete_log(spool: Spool, result: Result) -> None:
    """Brings the log to its end in S3; where S3 refuses for too long, the result says so."""
    try:
        insist_on_log(spool.flush)
        if dropped := spool.dropped:
            result.OutputDropped, result.OutputIncomplete = dropped, True
    except Exception:  # whatever S3 says, how the command ended must not be lost with it
        log.exception("log given up", exec_id=result.ID)
        result.OutputIncomplete = True
    result.OutputSize, result.Output = spool.stored, spool.tail


def take_stored_output(target: TargetMessage, command_: Command, result: Result) -> None:
    """The output of an adopted target: what its former worker had brought into the log."""
    key = logs.log_key(*target.ids)
    try:
        size = insist_on_log(lambda: logs.known(key))
        if size:
            result.Output = insist_on_log(lambda: logs.stored_end(key, command_.tail))
        result.OutputSize = size
    except Exception:  # whatever S3 says, how the command ended must not be lost with it
        log.exception("log not read", exec_id=result.ID)


def ended_meanwhile(target: TargetMessage, seconds: float) -> bool:
    """Whether the target's owner stores its end within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = insist(lambda: store.results.get_result(*target.ids))
        if result is None or result.Status in TERMINAL:
            return True
        time.sleep(_LOOK)
    return False


def conclude(command_: Command, result: Result, end: End) -> None:
    """Puts into the result how the command ended, without secrets."""
    if isinstance(end, Refusal):
        fail(result, Status.RUNNING_FAILED, end.reason, command_.scrub(str(end)))
    else:
        result.Inspect = command_.mask(end)
        result.Status, result.EndTime = Status.FINISHED, time.time()


def store_end(result: Result) -> None:
    """Stores how a target ended. Its log is complete in S3 by then."""
    if insist(lambda: store.results.move_result(result)):
        metrics.FINISHED.labels(_outcome(result)).inc()
    else:
        log.info("another worker stored this result first", exec_id=result.ID)


def _outcome(result: Result) -> str:
    if result.Status != Status.FINISHED:
        return str(result.Reason)
    return "succeeded" if result.Inspect["ExitCode"] == 0 else "exit_code"


def fail(result: Result, status: Status, reason: Reason, message: str) -> None:
    """Puts into the result that its target failed, and why."""
    result.Status, result.Reason, result.E = status, reason, message
    result.EndTime = time.time()
