"""One target's life: claim, start, read, end. And adoption: the same from wherever another left it.

A command runs at most once because only an exec whose ID is in the result is ever started, and the
engine starts an exec once. Whoever dies in between leaves a message that comes again and is adopted.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from chalicelib import logs, store
from chalicelib.config import settings
from chalicelib.errors import AppjobsError, ExecutionNotFound, JobNotFound, SecretsUnreadable
from chalicelib.models import Result
from chalicelib.queues import Received, TargetMessage
from chalicelib.states import TERMINAL, Reason, Status, expired_message
from worker import command, metrics
from worker.command import Command
from worker.engine import (
    AlreadyStarted,
    Engine,
    NotStarted,
    Refusal,
    UnknownExec,
    Unreachable,
)
from worker.output import Spool, SpoolDirectory
from worker.redact import Redactor

log = structlog.stdlib.get_logger(__name__)

# A command over sooner than this never shows as RUNNING: it saves a write per target.
_RUNNING_AFTER = 0.25
# How old the log in S3 may get while a command runs, and which share of the time uploads may take.
_FLUSH_SECONDS = 3.0
_FLUSH_PAUSE = 2
# Between two looks at an exec whose output has ended.
_LOOK_FIRST, _LOOK_LAST = 0.02, 2.0
# The engine ends the output when the command is over. Where it still runs so long after, in seconds, the
# connection was cut.
_CUT_AFTER = 1.0
# What the engine reports for a command that printed after its reader was gone.
_CUT_OFF = 126
# A claimed exec is started at most so many seconds after the delivery deadline.
_START_GRACE = 60
# Who adopts by a second message, while the first one may be in living hands, gives those so many seconds
# to store the end themselves: they have all of the output.
_OWNER_SECONDS = 30
# A log that S3 does not take for so long is given up, in favour of the exit code.
_LOG_SECONDS = 900

# Clocks of worker, API and engine differ by no more than this, in seconds.
_CLOCKS = 300

# How a command ended: the engine's inspect, or why there is none.
End = dict[str, Any] | Refusal


class Runner:
    """Runs targets on one node."""

    def __init__(self, engine: Engine, node_id: str, spools: SpoolDirectory, redact: bool) -> None:
        self._engine = engine
        self._node_id = node_id
        self._spools = spools
        self._redact = redact

    def run(self, message: Received) -> None:
        """Brings the message's target to its end; returns when its message may be deleted.

        Raises where it cannot go on now: the message must come again.
        """
        try:
            self._run(message.target, message.first)
        except (JobNotFound, ExecutionNotFound) as error:
            log.warning("dropped a message of an unknown execution", error=error.message)

    def _run(self, target: TargetMessage, first: bool) -> None:
        # A first delivery has no result, but for rare duplicates that the claim finds out.
        if first and self._claim_and_run(target):
            return
        result = store.get_result(target.job_id, target.executor_id, target.container_id)
        if result is None:
            self._claim_and_run(target)
        elif result.Status not in TERMINAL:
            self._adopt(target, result, _OWNER_SECONDS if first else 0)

    def _claim_and_run(self, target: TargetMessage) -> bool:
        """False where another was first."""
        result = self._new_result(target)
        try:
            command_ = command.load(target.job_id, target.executor_id)
            result.ExpiresAt = command_.expires
            self._create(command_, result)
        except SecretsUnreadable as error:
            _fail(result, Status.CREATE_FAILED, Reason.SECRETS_UNREADABLE, error.message)
        if not store.add_result(result):
            return False
        if result.Status == Status.CREATED:
            self._execute(target, command_, result)
        else:
            metrics.FINISHED.labels(result.Reason).inc()
        return True

    def _new_result(self, target: TargetMessage) -> Result:
        return Result(
            store.result_key(target.job_id, target.executor_id),
            target.container_id,
            NodeId=self._node_id,
            Status=Status.CREATED,
            ExpiresAt=int(time.time() + settings.retention),
        )

    def _create(self, command_: Command, result: Result) -> None:
        """Makes the exec, or finds out why it cannot be; the result says which."""
        deadline = settings.delivery_deadline
        if time.time() > command_.created + deadline:
            _fail(result, Status.CREATE_FAILED, Reason.EXPIRED, expired_message(deadline))
            return
        try:
            result.ID = self._engine.create(
                result.ContainerId,
                command_.words + command_.secrets,
                command_.env,
                command_.user,
                command_.privileged,
            )
        except Refusal as refusal:
            message = command_.scrub(str(refusal))
            _fail(result, Status.CREATE_FAILED, refusal.reason, message)

    def _execute(self, target: TargetMessage, command_: Command, result: Result) -> None:
        """Starts the exec, reads its output, and stores how it ended."""
        if time.time() > command_.created + settings.delivery_deadline + _START_GRACE:
            message = (
                "the worker that made its exec died before the start; it is too late to start it"
            )
            _fail(result, Status.RUNNING_FAILED, Reason.EXPIRED, message)
            _store_end(result)
            return
        log_object = logs.GrowingObject(_log_key(target))
        spool = self._spools.open(result.ID, log_object, command_.tail)
        result.StartTime = time.time()
        try:
            hidden = command_.secrets if self._redact else []
            reader = _Reader(self._engine, result.ID, spool, hidden)
            self._accompany(reader, spool, result)
            if isinstance(reader.error, AlreadyStarted):
                self._adopt(target, result, _OWNER_SECONDS)
                return
            self._end(command_, result, spool, reader.error)
        finally:
            spool.close()

    def _accompany(self, reader: "_Reader", spool: Spool, result: Result) -> None:
        """Stays with a command until its output ends: says RUNNING, brings the log up to date."""
        reader.start()
        reader.join(_RUNNING_AFTER)
        if not reader.is_alive():
            return
        result.Status = Status.RUNNING
        _tell(result)
        pause = _FLUSH_SECONDS
        while reader.is_alive():
            reader.join(pause)
            pause = _flush_in_between(spool)

    def _end(
        self, command_: Command, result: Result, spool: Spool, error: Exception | None
    ) -> None:
        """Finds out how a command ended whose output is over, and stores that, its log first."""
        if isinstance(error, Refusal) and not self._runs(result.ID):
            end: End = error
        else:
            if error or spool.end_in_doubt:
                result.OutputIncomplete = True
            # First how it ended: the engine remembers that for some minutes only.
            end = self._await_end(result, lambda: _flush_in_between(spool))
        _complete_log(spool, result)
        _conclude(command_, result, end)
        if result.OutputIncomplete:
            log.warning("output incomplete", exec_id=result.ID, error=str(error))
        _store_end(result)

    def _runs(self, exec_id: str) -> bool:
        """Whether an engine that failed in the middle of a start has started the exec all the same."""
        try:
            return bool(self._engine.inspect(exec_id)["Running"])
        except (Refusal, UnknownExec, Unreachable):
            return False

    def _adopt(self, target: TargetMessage, result: Result, owner_seconds: float) -> None:
        """Goes on from where another worker, or this one before it was started anew, left it."""
        log.info("adopting", exec_id=result.ID, status=result.Status)
        metrics.ADOPTED.inc()
        # Nobody can attach again to an exec's output, so the log has what was uploaded before.
        result.OutputIncomplete = True
        try:
            end = self._await_end(result)
            if _ended_meanwhile(target, owner_seconds):
                return
            command_ = _insist(lambda: command.load(target.job_id, target.executor_id))
        except NotStarted:
            result.OutputIncomplete = None
            self._execute(target, command.load(target.job_id, target.executor_id), result)
            return
        except SecretsUnreadable as error:
            # Nothing of it can be shown: we could not tell its secrets from the rest.
            _fail(result, Status.RUNNING_FAILED, Reason.SECRETS_UNREADABLE, error.message)
        else:
            _take_stored_output(target, command_, result)
            _conclude(command_, result, end)
        _store_end(result)

    def _await_end(self, result: Result, meanwhile: Callable[[], object] = lambda: None) -> End:
        """How the exec ended, once it has, however long that takes. Raises NotStarted."""
        began, pause = time.monotonic(), _LOOK_FIRST
        while True:
            try:
                if end := self._look(result, time.monotonic() - began):
                    return end
            except UnknownExec:
                result.OutputIncomplete = True
                message = "the engine does not know this exec any more; how it ended is lost"
                return Refusal(Reason.LOST, message)
            except Unreachable as error:
                log.warning("engine unreachable", error=str(error))
                metrics.RETRIES.labels("inspect").inc()
            time.sleep(pause)
            meanwhile()
            pause = min(pause * 2, _LOOK_LAST)

    def _look(self, result: Result, waited: float) -> End | None:
        """How the exec ended; None while it runs. Raises NotStarted, UnknownExec, Unreachable."""
        try:
            inspect = self._engine.inspect(result.ID)
        except Refusal as refusal:
            if refusal.reason in (Reason.CONTAINER_NOT_FOUND, Reason.CONTAINER_NOT_RUNNING):
                return Refusal(Reason.CONTAINER_GONE, str(refusal))
            # Paused, or an error of the engine's own: the command is not over because of it.
            log.info("exec not inspected", error=str(refusal))
            return None
        if inspect["Running"]:
            result.OutputIncomplete = result.OutputIncomplete or waited > _CUT_AFTER or None
            return None
        if inspect["ExitCode"] is None:
            raise NotStarted("the start did not reach the engine; the next delivery starts it")
        if inspect["ExitCode"] == _CUT_OFF and result.OutputIncomplete:
            return self._with_recorded_exit(inspect, result)
        return inspect

    def _with_recorded_exit(self, inspect: dict[str, Any], result: Result) -> End:
        """The end of a command that lost its reader.

        What it prints from then on makes the engine (20.10) report 126 for it, whatever it ended with.
        The engine's event of its end has the true code. Raises Unreachable.
        """
        try:
            code = self._engine.recorded_exit(result.ID, _created(result) - _CLOCKS)
        except Refusal as refusal:
            log.warning("no events", error=str(refusal))
            code = None
        if code is None:
            message = "the command is over; its exit code was lost with its output"
            return Refusal(Reason.LOST, message)
        return {**inspect, "ExitCode": code}


class _Reader(threading.Thread):
    """Starts an exec and takes its output into the spool as fast as the engine gives it.

    The values of the `hidden` secrets are taken out on the way.
    """

    def __init__(self, engine: Engine, exec_id: str, spool: Spool, hidden: list[str]) -> None:
        super().__init__(name=f"read {exec_id[:12]}", daemon=True)
        self._engine = engine
        self._exec_id = exec_id
        self._spool = spool
        # One for stdout and one for stderr, whose pieces come mixed.
        self._redactors: dict[int, Redactor] = defaultdict(lambda: Redactor(hidden))
        # Why the output ended before its end, if it did.
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the target still needs its end
            self.error = error

    def _read(self) -> None:
        try:
            for stream, chunk in self._engine.start(self._exec_id):
                metrics.OUTPUT.inc(len(chunk))
                self._spool.write(self._redactors[stream].feed(chunk))
        finally:
            for redactor in self._redactors.values():
                self._spool.write(redactor.flush())


def _tell(result: Result) -> None:
    """Stores a status that is only news: whether that works or not, the command runs."""
    try:
        store.move_result(result)
    except Exception:  # the end of the command is stored with more patience
        log.warning("status not stored", status=result.Status, exc_info=True)


def _flush_in_between(spool: Spool) -> float:
    """Flushes; returns how long to wait for the next. A failure waits for the next flush too."""
    began = time.monotonic()
    try:
        spool.flush()
    except Exception:  # the output waits in the spool for the next flush
        log.warning("log not stored for now", exc_info=True)
        metrics.RETRIES.labels("log").inc()
    return max(_FLUSH_SECONDS, _FLUSH_PAUSE * (time.monotonic() - began))


def _count_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", attempt=state.attempt_number, error=str(error))
    metrics.RETRIES.labels("end").inc()


def _worth_another_try(error: BaseException) -> bool:
    """A domain's error is an answer; what is no Exception ends the process."""
    return isinstance(error, Exception) and not isinstance(error, AppjobsError)


# What must not be lost is tried again until it works or this process ends: our message is held meanwhile.
_insist = Retrying(
    wait=wait_exponential_jitter(multiplier=0.2, max=20),
    retry=retry_if_exception(_worth_another_try),
    before_sleep=_count_retry,
    reraise=True,
)
_insist_on_log = _insist.copy(stop=stop_after_delay(_LOG_SECONDS))


def _complete_log(spool: Spool, result: Result) -> None:
    """Brings the log to its end in S3; where S3 refuses for too long, the result says so."""
    try:
        _insist_on_log(spool.flush)
    except Exception:  # whatever S3 says, how the command ended must not be lost with it
        log.exception("log given up", exec_id=result.ID)
        result.OutputIncomplete = True
    result.OutputSize, result.Output = spool.stored, spool.tail


def _take_stored_output(target: TargetMessage, command_: Command, result: Result) -> None:
    """The output of an adopted target: what its former worker had brought into the log."""
    key = _log_key(target)
    try:
        size = _insist_on_log(lambda: logs.stored(key))
        if size:
            result.Output = _insist_on_log(lambda: logs.stored_end(key, command_.tail))
        result.OutputSize = size
    except Exception:  # whatever S3 says, how the command ended must not be lost with it
        log.exception("log not read", exec_id=result.ID)


def _ended_meanwhile(target: TargetMessage, seconds: float) -> bool:
    """Whether the target's owner stores its end within so many seconds."""
    ids = (target.job_id, target.executor_id, target.container_id)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = _insist(lambda: store.get_result(*ids))
        if result is None or result.Status in TERMINAL:
            return True
        time.sleep(_LOOK_LAST)
    return False


def _conclude(command_: Command, result: Result, end: End) -> None:
    """Puts into the result how the command ended, without secrets."""
    if isinstance(end, Refusal):
        _fail(result, Status.RUNNING_FAILED, end.reason, command_.scrub(str(end)))
    else:
        result.Inspect = command_.mask(end)
        result.Status, result.EndTime = Status.FINISHED, time.time()


def _store_end(result: Result) -> None:
    """Stores how a target ended. Its log is complete in S3 by then."""
    if _insist(lambda: store.move_result(result)):
        metrics.FINISHED.labels(_outcome(result)).inc()
    else:
        log.info("another worker stored this result first", exec_id=result.ID)


def _outcome(result: Result) -> str:
    if result.Status != Status.FINISHED:
        return str(result.Reason)
    return "succeeded" if result.Inspect["ExitCode"] == 0 else "exit_code"


def _fail(result: Result, status: Status, reason: Reason, message: str) -> None:
    result.Status, result.Reason, result.E = status, reason, message
    result.EndTime = time.time()


def _created(result: Result) -> float:
    """When the execution was accepted, in seconds."""
    return float(result.Execution.rpartition("/")[2])


def _log_key(target: TargetMessage) -> str:
    return logs.log_key(target.job_id, target.executor_id, target.container_id)
