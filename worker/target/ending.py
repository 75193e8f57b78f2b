"""How a target's end is stored: first its log, then its result. Both are tried again and again."""

import time

import structlog

from chalicelib import store
from chalicelib.domain.exec_inspect import Inspect
from chalicelib.domain.results import Failure
from chalicelib.domain.states import Status
from chalicelib.store.models import Result
from worker import metrics
from worker.output.growth import GrowingLog
from worker.patience import insist, insist_on_log
from worker.target.command import Command
from worker.target.outcome import Ended, LoggedOutput

log = structlog.stdlib.get_logger(__name__)


def keep_output(growing: GrowingLog, exec_id: str, known_as_whole: bool) -> LoggedOutput:
    """Keeps a short and whole text only in the result, which costs less, and all other output also in S3.

    The API cannot answer bytes that are no text to a client that does not say what it accepts. Such a
    client gets a link to S3.
    """
    spool = growing.spool
    if known_as_whole and spool.is_short and is_text(spool.tail):
        return LoggedOutput(spool.size, spool.tail)
    return complete_log(growing, exec_id, known_as_whole)


def is_text(output: bytes) -> bool:
    """Whether the API can answer it to all clients."""
    try:
        output.decode()
    except UnicodeDecodeError:
        return False
    return True


def complete_log(growing: GrowingLog, exec_id: str, known_as_whole: bool) -> LoggedOutput:
    """Puts the log together in S3. If S3 refuses for too long, the log stays incomplete."""
    spool = growing.spool

    def finish() -> None:
        growing.finish()
        growing.note_whole(known_as_whole and spool.dropped is None)

    try:
        insist_on_log(finish)
    except Exception:  # whatever S3 says, how the command ended must not be lost with the log
        log.exception("log given up", exec_id=exec_id)
        return LoggedOutput(spool.uploaded, spool.tail, incomplete=True)
    dropped = spool.dropped
    return LoggedOutput(spool.uploaded, spool.tail, dropped, incomplete=dropped is not None)


def store_end(command: Command, result: Result, ended: Ended, output: LoggedOutput) -> bool:
    """Stores how a command ended, without its secrets; a long output is complete in S3 by then.

    False if another worker stored an end first.
    """
    if isinstance(ended.end, Failure):
        end: Inspect | Failure = Failure(ended.end.reason, command.scrub(ended.end.message))
    else:
        end = command.shorten(ended.end, result.ID, result.ContainerId)
    return _store(result, Ended(end, ended.output_incomplete), output)


def store_failure(result: Result, failure: Failure, output_incomplete: bool = False) -> bool:
    """Stores a failure whose message is our own: nothing of the command can be in it.

    False if another worker stored an end first.
    """
    return _store(result, Ended(failure, output_incomplete), LoggedOutput())


def _store(result: Result, ended: Ended, output: LoggedOutput) -> bool:
    result.OutputSize = output.size
    if output.end is not None:
        end = output.end
        insist(lambda: store.outputs.keep(result, end))
    result.OutputDropped = output.dropped
    result.OutputIncomplete = ended.output_incomplete or output.incomplete or None
    if isinstance(ended.end, Failure):
        fail(result, Status.RUNNING_FAILED, ended.end)
    else:
        result.Inspect = ended.end
        result.Status, result.EndTime = Status.FINISHED, time.time()
    if insist(lambda: store.results.move_result(result)):
        metrics.FINISHED.labels(_outcome(result)).inc()
        return True
    log.info("another worker stored this result first", exec_id=result.ID)
    return False


def _outcome(result: Result) -> str:
    if result.Status != Status.FINISHED:
        return str(result.Reason)
    return "succeeded" if result.Inspect["ExitCode"] == 0 else "exit_code"


def fail(result: Result, status: Status, failure: Failure) -> None:
    """Writes into the result that its target failed, and why."""
    result.Status, result.Reason, result.E = status, failure.reason, failure.message
    result.EndTime = time.time()
