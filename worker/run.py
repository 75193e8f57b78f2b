"""One target's life: claim, start, read, end. And adoption: the same from wherever another left it.

A command runs at most once because only an exec whose ID is in the result is ever started, and the
engine starts an exec once. Whoever dies in between leaves a message that comes again and is adopted.
"""

import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import structlog
from tenacity import retry, stop_after_delay, wait_exponential_jitter

from chalicelib import logs, secrets, store
from chalicelib.config import settings
from chalicelib.errors import ExecutionNotFound, JobNotFound, SecretsUnreadable
from chalicelib.models import Result
from chalicelib.queues import Received, TargetMessage
from chalicelib.states import TERMINAL, Reason, Status, expired_message
from worker.engine import (
    AlreadyStarted,
    Engine,
    Refusal,
    UnknownExec,
    Unreachable,
)
from worker.output import Spool

log = structlog.stdlib.get_logger(__name__)

# A command over sooner than this never shows as RUNNING: it saves a write per target.
_RUNNING_AFTER = 0.25
# How old the log in S3 may get while a command runs, and which share of the time uploads may take.
_FLUSH_SECONDS = 3.0
_FLUSH_PAUSE = 2
# Between two looks at an exec whose output has ended.
_LOOK_FIRST, _LOOK_LAST = 0.02, 2.0
# The end of the output in the result: this much, and this much for all results of an execution.
_TAIL, _ALL_TAILS = 32 * 1024, 4 * 1024**2
_MESSAGE = 2000
# What the engine reports for a command that printed after its reader was gone.
_CUT_OFF = 126
# An end that cannot be stored for this long is left to the next delivery of the message.
_INSIST_SECONDS = 900

T = TypeVar("T")


class NotStarted(Exception):
    """The exec is there and was never started: whoever adopts it may start it."""


@dataclass(frozen=True)
class Command:
    """What an execution runs, its secrets opened."""

    words: list[str]
    secrets: list[str]
    env: list[str]
    user: str
    privileged: bool
    created: float
    expires: int
    tail: int

    def mask(self, inspect: dict[str, Any]) -> dict[str, Any]:
        """The engine's inspect with the secret arguments, which are the last ones, masked."""
        if not self.secrets:
            return inspect
        process = inspect["ProcessConfig"]
        plain = process["arguments"][: -len(self.secrets)]
        masked = [*plain, *("*" * len(secret) for secret in self.secrets)]
        return {**inspect, "ProcessConfig": {**process, "arguments": masked}}

    def scrub(self, message: str) -> str:
        """An error's text without secrets, and not too long to be stored a thousand times."""
        # The longest first: a secret may begin with another.
        for secret in sorted(self.secrets, key=len, reverse=True):
            message = message.replace(secret, "***") if secret else message
        return message[:_MESSAGE]


# Many targets of one execution come in a row: its item, which lists all of them, is read once.
@lru_cache(maxsize=64)
def command(job_id: str, executor_id: str) -> Command:
    """What to run. Raises JobNotFound, ExecutionNotFound, SecretsUnreadable."""
    execution = store.get_execution(job_id, executor_id)
    return Command(
        words=shlex.split(execution.Cmd),
        secrets=[secrets.unseal(job_id, sealed) for sealed in secrets.unpack(execution.Sealed)],
        env=list(execution.Env),
        user=execution.User,
        privileged=execution.Privileged,
        created=float(executor_id),
        expires=int(execution.ExpiresAt),
        tail=min(_TAIL, _ALL_TAILS // len(execution.Target)),
    )


class Runner:
    """Runs targets on one node."""

    def __init__(self, engine: Engine, node_id: str, spool_dir: Path, spool_bytes: int) -> None:
        self._engine = engine
        self._node_id = node_id
        self._spool_dir = spool_dir
        self._spool_bytes = spool_bytes

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
            self._adopt(target, result)

    def _claim_and_run(self, target: TargetMessage) -> bool:
        """False where another was first."""
        result = self._new_result(target)
        try:
            command_ = command(target.job_id, target.executor_id)
            result.ExpiresAt = command_.expires
            self._create(command_, result)
        except SecretsUnreadable as error:
            _fail(result, Status.CREATE_FAILED, Reason.SECRETS_UNREADABLE, error.message)
        if not store.add_result(result):
            return False
        if result.Status == Status.CREATED:
            self._execute(target, command_, result)
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
        log_object = logs.GrowingObject(_log_key(target))
        path = self._spool_dir / result.ID
        spool = Spool(path, log_object, command_.tail, self._spool_bytes)
        result.StartTime = time.time()
        try:
            reader = _Reader(self._engine, result.ID, spool)
            self._accompany(reader, spool, result)
            if isinstance(reader.error, AlreadyStarted):
                self._adopt(target, result)
                return
            _insist(spool.flush)
            result.OutputSize = spool.size
            result.Output = spool.tail
            cut = reader.error is not None and not isinstance(reader.error, Refusal)
            if cut or spool.end_in_doubt:
                log.warning("output incomplete", exec_id=result.ID, error=str(reader.error))
                result.OutputIncomplete = True
            if isinstance(reader.error, Refusal):
                _fail_running(command_, result, reader.error)
            else:
                self._await_end(command_, result)
            _store_end(result)
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

    def _adopt(self, target: TargetMessage, result: Result) -> None:
        """Goes on from where another worker, or this one before it was started anew, left it."""
        try:
            command_ = command(target.job_id, target.executor_id)
        except SecretsUnreadable as error:
            # Nothing of it can be shown: we could not tell its secrets from the rest.
            _fail(result, Status.RUNNING_FAILED, Reason.SECRETS_UNREADABLE, error.message)
            _store_end(result)
            return
        try:
            inspect = self._engine.inspect(result.ID)
        except (UnknownExec, Refusal):
            inspect = {}  # `_await_end` looks again and says what it means.
        if inspect.get("Running") is False and inspect.get("ExitCode") is None:
            self._execute(target, command_, result)
            return
        log.info("adopted", exec_id=result.ID, running=inspect.get("Running"))
        # Nobody can attach again to an exec's output, so the log has what was uploaded before.
        result.OutputIncomplete = True
        self._await_end(command_, result)
        key = _log_key(target)
        result.OutputSize = logs.stored(key)
        if result.OutputSize:
            result.Output = logs.stored_end(key, command_.tail)
        _store_end(result)

    def _await_end(self, command_: Command, result: Result) -> None:
        """Waits for the exec's end; the result says then how it ended."""
        try:
            inspect = self._wait_for_exit(result.ID)
            if result.OutputIncomplete and inspect["ExitCode"] == _CUT_OFF:
                inspect["ExitCode"] = self._recorded_exit(command_, result)
        except Refusal as refusal:
            _fail_running(command_, result, refusal)
        except UnknownExec:
            message = "the engine does not know this exec any more; how it ended is lost"
            _fail(result, Status.RUNNING_FAILED, Reason.LOST, message)
        else:
            result.Inspect = command_.mask(inspect)
            result.Status, result.EndTime = Status.FINISHED, time.time()

    def _recorded_exit(self, command_: Command, result: Result) -> int:
        """The exit code of a command that lost its reader. Raises Refusal where nobody knows it.

        What it prints from then on makes the engine (20.10) report 126 for it, whatever it ended with.
        The engine's event of its end has the true one.
        """
        code = self._engine.recorded_exit(result.ID, result.StartTime or command_.created)
        if code is None:
            raise Refusal(
                Reason.LOST, "the command is over; its exit code was lost with its output"
            )
        return code

    def _wait_for_exit(self, exec_id: str) -> dict[str, Any]:
        """The engine's inspect of the exec once it is over. Raises UnknownExec, Refusal, NotStarted."""
        pause = _LOOK_FIRST
        while True:
            try:
                inspect = self._engine.inspect(exec_id)
                if not inspect["Running"]:
                    return _ended(inspect)
            except Unreachable as error:
                log.warning("engine unreachable", error=str(error))
            except Refusal as refusal:
                if refusal.reason in (Reason.CONTAINER_NOT_FOUND, Reason.CONTAINER_NOT_RUNNING):
                    raise Refusal(Reason.CONTAINER_GONE, str(refusal)) from None
                # Paused, or an error of the engine's own: the command is not over because of it.
                log.info("exec not inspected", error=str(refusal))
            time.sleep(pause)
            pause = min(pause * 2, _LOOK_LAST)


class _Reader(threading.Thread):
    """Starts an exec and takes its output into the spool as fast as the engine gives it."""

    def __init__(self, engine: Engine, exec_id: str, spool: Spool) -> None:
        super().__init__(name=f"read {exec_id[:12]}", daemon=True)
        self._engine = engine
        self._exec_id = exec_id
        self._spool = spool
        # Why the output ended before its end, if it did.
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for chunk in self._engine.start(self._exec_id):
                self._spool.write(chunk)
        except Exception as error:  # noqa: BLE001 - whatever it is, the target still needs its end
            self.error = error


def _ended(inspect: dict[str, Any]) -> dict[str, Any]:
    if inspect["ExitCode"] is None:
        raise NotStarted(
            "the start did not reach the engine; the message's next delivery starts it"
        )
    return inspect


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
    return max(_FLUSH_SECONDS, _FLUSH_PAUSE * (time.monotonic() - began))


@retry(
    wait=wait_exponential_jitter(multiplier=0.2, max=20),
    stop=stop_after_delay(_INSIST_SECONDS),
    reraise=True,
)
def _insist(write: Callable[[], T]) -> T:
    """Does a write that must not be lost, through minutes of outage: our message is held meanwhile."""
    return write()


def _store_end(result: Result) -> None:
    """Stores how a target ended. Its log is complete in S3 by then."""
    if not _insist(lambda: store.move_result(result)):
        log.info("another worker stored this result first", exec_id=result.ID)


def _fail_running(command_: Command, result: Result, refusal: Refusal) -> None:
    message = command_.scrub(str(refusal))
    _fail(result, Status.RUNNING_FAILED, refusal.reason, message)


def _fail(result: Result, status: Status, reason: Reason, message: str) -> None:
    result.Status, result.Reason, result.E = status, reason, message
    result.EndTime = time.time()


def _log_key(target: TargetMessage) -> str:
    return logs.log_key(target.job_id, target.executor_id, target.container_id)
