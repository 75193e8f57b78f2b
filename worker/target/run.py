"""One target's life: claim, start, read, end. And adoption: the same from wherever another left it.

A command runs at most once because only an exec whose ID is in the result is ever started, and the
engine starts an exec once. Whoever dies in between leaves a message that comes again and is adopted.
"""

import time
from collections.abc import Callable
from typing import Any

import structlog

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.errors import ExecutionNotFound, SecretsUnreadable
from chalicelib.domain.states import (
    MEANINGS,
    TERMINAL,
    Reason,
    Status,
    expired_message,
    repeated_message,
)
from chalicelib.store.models import Result
from worker import metrics
from worker.engine.client import (
    AlreadyStarted,
    Engine,
    NotStarted,
    Refusal,
    UnknownExec,
    Unreachable,
)
from worker.engine.exits import Exits
from worker.output.reader import Reader
from worker.output.redact import Needles
from worker.output.spool import Spool, SpoolDirectory
from worker.patience import insist
from worker.target import ending
from worker.target.admission import admit
from worker.target.command import Command, Commands
from worker.target.ending import End

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
# Between two looks at whether the engine still knows an exec whose output it holds open. Seldom: there
# may be a thousand of them, and it takes an engine that got stuck in a start.
_LOOK_KNOWN = 300
# What engines report for a command that printed after its reader was gone; and what they say in the event
# of its end, where they had lost sight of it by then.
_CUT_OFF, _GIVEN_UP = 126, 127
# A claimed exec is started at most so many seconds after the delivery deadline.
_START_GRACE = 60
# Who adopts by a second message, while the first one may be in living hands, gives those so many seconds
# to store the end themselves: they have all of the output.
_OWNER_SECONDS = 30
# The same by a message that came again: its owner is dead, or could not hold it while SQS was away.
_DOUBTFUL_OWNER_SECONDS = 5
# An engine that did not answer for so many seconds will not tell any more how an exec ended: it has
# forgotten it by the time it comes back.
_ENGINE_GONE = 3600


class Runner:
    """Runs targets on one node."""

    def __init__(
        self,
        engine: Engine,
        exits: Exits,
        node_id: str,
        commands: Commands,
        spools: SpoolDirectory,
        redact: bool,
    ) -> None:
        self._engine = engine
        self._exits = exits
        self._commands = commands
        self._node_id = node_id
        self._spools = spools
        self._redact = redact

    def run(self, message: Received, rest: Callable[[], None] = lambda: None) -> None:
        """Brings the message's target to its end; returns when its message may be deleted.

        Calls `rest` when all that is left is to wait for the end of what runs already. Raises where it
        cannot go on now: the message must come again.
        """
        try:
            with self._commands.held(message.target):
                self._run(message.target, message.first, rest)
        except ExecutionNotFound as error:
            log.warning("dropped a message of an unknown execution", error=error.message)

    def is_taken_up(self, target: TargetMessage) -> bool:
        """Whether a worker took the target up before: it may run, or be over."""
        return store.results.get_result(*target.ids) is not None

    def _run(self, target: TargetMessage, first: bool, rest: Callable[[], None]) -> None:
        if not self._commands.is_target(target, self._node_id):
            log.warning("dropped a message of no target", node_id=self._node_id)
            return
        # A first delivery has no result, but for rare duplicates that the claim finds out.
        if first and self._claim_and_run(target):
            return
        result = store.results.get_result(*target.ids)
        if result is None:
            if self._claim_and_run(target):
                return
            # Another claimed it meanwhile: our message may be the only one.
            result = store.results.get_result(*target.ids)
        if result and result.Status not in TERMINAL:
            rest()
            self._adopt(target, result, owner_lives=first)

    def _claim_and_run(self, target: TargetMessage) -> bool:
        """False where another was first."""
        result = self._new_result(target)
        try:
            command_ = self._commands.load(target)
            result.ExpiresAt = command_.expires
            self._create(command_, result)
        except SecretsUnreadable as error:
            ending.fail(result, Status.CREATE_FAILED, Reason.SECRETS_UNREADABLE, error.message)
        if not store.results.add_result(result):
            return False
        if result.Status == Status.CREATED:
            self._execute(target, command_, result)
        else:
            metrics.FINISHED.labels(result.Reason).inc()
        return True

    def _new_result(self, target: TargetMessage) -> Result:
        return Result(
            store.results.result_key(target.job_id, target.executor_id),
            target.container_id,
            NodeId=self._node_id,
            Status=Status.CREATED,
            ExpiresAt=int(time.time() + settings.retention),
        )

    def _create(self, command_: Command, result: Result) -> None:
        """Makes the exec, or finds out why it cannot be; the result says which."""
        deadline = settings.delivery_deadline
        if time.time() > command_.created + deadline:
            ending.fail(result, Status.CREATE_FAILED, Reason.EXPIRED, expired_message(deadline))
            return
        try:
            arguments = _arguments(command_)
            container = self._engine.container(result.ContainerId)
            user = admit(self._engine, command_, container)
            _take(result, container["Id"])
            result.ID = self._engine.create(
                container["Id"],
                arguments,
                command_.env,
                user,
                command_.privileged,
            )
        except Refusal as refusal:
            message = command_.scrub(str(refusal))
            ending.fail(result, Status.CREATE_FAILED, refusal.reason, message)

    def _execute(self, target: TargetMessage, command_: Command, result: Result) -> None:
        """Starts the exec, reads its output, and stores how it ended."""
        if time.time() > command_.created + settings.delivery_deadline + _START_GRACE:
            message = (
                "the worker that made its exec died before the start; it is too late to start it"
            )
            ending.fail(result, Status.RUNNING_FAILED, Reason.EXPIRED, message)
            ending.store_end(result)
            return
        log_object = logs.GrowingObject(logs.log_key(*target.ids))
        spool = self._spools.open(result.ID, log_object, command_.tail, command_.log_bytes)
        result.StartTime = time.time()
        try:
            hidden = command_.needles if self._redact else Needles([])
            reader = Reader(self._engine, result.ID, spool, hidden)
            self._accompany(reader, spool, result)
            if isinstance(reader.error, AlreadyStarted):
                self._adopt(target, result, owner_lives=True)
                return
            self._end(command_, result, spool, reader.error)
        finally:
            spool.close()

    def _accompany(self, reader: Reader, spool: Spool, result: Result) -> None:
        """Stays with a command until its output ends: says RUNNING, brings the log up to date.

        An output that the engine holds open for an exec that it does not know any more will never end.
        """
        reader.start()
        reader.join(_RUNNING_AFTER)
        if not reader.is_alive():
            return
        result.Status = Status.RUNNING
        told, pause, looked = _tell(result), _FLUSH_SECONDS, time.monotonic()
        while reader.is_alive():
            reader.join(pause)
            # How it ended is asked before the rest is uploaded: the engine forgets that in some minutes.
            if reader.is_alive():
                pause = _flush_in_between(spool)
                told = told or _tell(result)
            if time.monotonic() - looked > _LOOK_KNOWN:
                looked = time.monotonic()
                # Who waits for room in the spool has output yet.
                if not spool.waiting and self._is_forgotten(result.ID):
                    return

    def _is_forgotten(self, exec_id: str) -> bool:
        try:
            self._engine.inspect(exec_id)
        except UnknownExec:
            return True
        except (Refusal, Unreachable) as error:
            log.info("exec not inspected", error=str(error))
        return False

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
        ending.complete_log(spool, result)
        ending.conclude(command_, result, end)
        if result.OutputIncomplete:
            log.warning("output incomplete", exec_id=result.ID, error=str(error))
        ending.store_end(result)

    def _runs(self, exec_id: str) -> bool:
        """Whether an engine that failed in the middle of a start has, or may have, started the exec."""
        try:
            return bool(self._engine.inspect(exec_id)["Running"])
        except Unreachable:
            return True
        except (Refusal, UnknownExec):
            return False

    def _adopt(self, target: TargetMessage, result: Result, owner_lives: bool) -> None:
        """Goes on from where another worker, or this one before it was started anew, left it."""
        log.info("adopting", exec_id=result.ID, status=result.Status)
        metrics.ADOPTED.inc()
        try:
            self._bring_to_end(target, result, owner_lives)
        except SecretsUnreadable as error:
            # Nothing of it can be shown: we could not tell its secrets from the rest.
            reason = Reason.SECRETS_UNREADABLE
            ending.fail(result, Status.RUNNING_FAILED, reason, error.message)
            ending.store_end(result)

    def _bring_to_end(self, target: TargetMessage, result: Result, owner_lives: bool) -> None:
        began = time.monotonic()
        # Nobody can attach again to an exec's output, so the log has what was uploaded before.
        result.OutputIncomplete = True
        try:
            end = self._await_end(result)
        except NotStarted:
            result.OutputIncomplete = None
            self._execute(target, self._commands.load(target), result)
            return
        watched = time.monotonic() - began > _CUT_AFTER
        if ending.ended_meanwhile(target, _owner_seconds(owner_lives, watched)):
            return
        command_ = insist(lambda: self._commands.load(target))
        ending.take_stored_output(target, command_, result)
        ending.conclude(command_, result, end)
        ending.store_end(result)

    def _await_end(self, result: Result, meanwhile: Callable[[], object] = lambda: None) -> End:
        """How the exec ended, once it has, however long that takes. Raises NotStarted."""
        began, pause = time.monotonic(), _LOOK_FIRST
        answered = began
        while True:
            try:
                if end := self._look(result, time.monotonic() - began):
                    return end
                answered = time.monotonic()
            except UnknownExec:
                result.OutputIncomplete = True
                return Refusal(Reason.LOST, self._why_unknown(result.ID))
            except Unreachable as error:
                # The output that ended may have been cut together with this.
                result.OutputIncomplete = True
                log.warning("engine unreachable", error=str(error))
                metrics.RETRIES.labels("inspect").inc()
                if time.monotonic() - answered > _ENGINE_GONE:
                    message = (
                        f"the engine has been silent for {_ENGINE_GONE} s; how it ended is lost"
                    )
                    return Refusal(Reason.LOST, message)
            time.sleep(pause)
            meanwhile()
            pause = min(pause * 2, _LOOK_LAST)

    def _look(self, result: Result, waited: float) -> End | None:
        """How the exec ended; None while it runs. Raises NotStarted, UnknownExec, Unreachable."""
        try:
            inspect = self._engine.inspect(result.ID)
        except Refusal as refusal:
            if MEANINGS[refusal.reason].container_is_away:
                return Refusal(Reason.CONTAINER_GONE, str(refusal))
            # Paused, or an error of the engine's own: the command is not over because of it.
            log.info("exec not inspected", error=str(refusal))
            return None
        if inspect["Running"]:
            result.OutputIncomplete = result.OutputIncomplete or waited > _CUT_AFTER or None
            return None
        if inspect["ExitCode"] is None:
            raise NotStarted("the start did not reach the engine; the next delivery starts it")
        # Without a process it could not start; nothing of it was cut.
        if inspect["ExitCode"] == _CUT_OFF and inspect["Pid"]:
            return self._after_cut(inspect, result)
        return inspect

    def _after_cut(self, inspect: dict[str, Any], result: Result) -> End | None:
        """The end of a command that may have lost its reader; None while it runs.

        What it prints from then on makes the engine report 126 for it, whatever it ended with, and where
        it prints to both of its streams even before it ends. The engine's event of its end has the true
        code, unless it was given up. Raises Unreachable.
        """
        code = self._exits.known(result.ID)
        if code is None and self._is_alive(result, inspect["Pid"]):
            result.OutputIncomplete = True
            return None
        code = self._exits.told(result.ID)
        if code in (None, _GIVEN_UP) and result.OutputIncomplete:
            return Refusal(Reason.LOST, self._why_lost(code))
        if code in (None, _GIVEN_UP, _CUT_OFF):
            return inspect
        result.OutputIncomplete = True
        return {**inspect, "ExitCode": code}

    def _is_alive(self, result: Result, pid: int) -> bool:
        try:
            return self._engine.is_alive(result.ContainerId, pid)
        except Refusal as refusal:
            log.info("no processes", error=str(refusal))
            return False

    def _why_unknown(self, exec_id: str) -> str:
        code = self._exits.known(exec_id)
        known = "how it ended is lost" if code is None else f"by its events it ended with {code}"
        return f"the engine does not know this exec any more; {known}"

    def _why_lost(self, code: int | None) -> str:
        if code == _GIVEN_UP:
            return (
                "the command is over; it lost its reader, and the engine lost sight of it: the 127 in "
                "the event of its end need not be its own exit code"
            )
        return (
            "the command is over; its exit code was lost with its output. The engine had forgotten the "
            f"event of its end when a worker began to follow its events, at {self._exits.since}"
        )


def _take(result: Result, long_id: str) -> None:
    """Makes the target the only one of its container. Raises Refusal where another one has it."""
    if result.ContainerId == long_id:
        return  # Its claim, under that id, does the same.
    first = store.results.take_container(result, long_id)
    if first != result.ContainerId:
        raise Refusal(Reason.CONTAINER_REPEATED, repeated_message(first))


def _arguments(command_: Command) -> list[str]:
    try:
        return command_.words + command_.secrets
    except ValueError as error:  # saved when commands were split by other rules
        message = f"Cmd does not split into words as a POSIX shell splits them: {error}"
        raise Refusal(Reason.COMMAND_INVALID, message) from None


def _owner_seconds(lives: bool, watched: bool) -> float:
    """How long to leave an end to its owner; one that is older than our look at it, nobody stores."""
    if lives:
        return _OWNER_SECONDS
    return _DOUBTFUL_OWNER_SECONDS if watched else 0


def _tell(result: Result) -> bool:
    """Stores a status that is only news: whether that works or not, the command runs."""
    try:
        store.results.move_result(result)
    except Exception:  # the end of the command is stored with more patience
        log.warning("status not stored", status=result.Status, exc_info=True)
        return False
    return True


def _flush_in_between(spool: Spool) -> float:
    """Uploads a piece; returns how long to wait for the next. A failure waits as long too."""
    began = time.monotonic()
    try:
        if spool.flush_some():
            return 0
    except Exception:  # the output waits in the spool for the next flush
        log.warning("log not stored for now", exc_info=True)
        metrics.RETRIES.labels("log").inc()
    return max(_FLUSH_SECONDS, _FLUSH_PAUSE * (time.monotonic() - began))
