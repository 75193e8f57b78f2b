"""A target's life: makes and claims its exec, starts and watches it, and stores its end.

A command runs at most once: only an exec whose ID is in the result is ever started, and the engine
starts an exec only once. If a worker dies in between, the message comes again, and the next worker
adopts the target.
"""

import time
from collections.abc import Callable
from contextlib import closing

import structlog

from chalicelib import store
from chalicelib.clients.logs import GrowingObject, log_key
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.errors import ExecutionNotFound, SecretsUnreadable
from chalicelib.domain.results import Failure
from chalicelib.domain.states import TERMINAL, Reason, Status
from chalicelib.store.models import Result
from worker.engine.client import Engine
from worker.engine.errors import AlreadyStarted
from worker.engine.events import ExitCodes
from worker.output.reader import read
from worker.output.redact import Needles
from worker.output.spool import Spool, SpoolDirectory
from worker.target import ending
from worker.target.adopt import Adopter, Owner
from worker.target.attachment import Attachment
from worker.target.claim import claim
from worker.target.command import Command, Commands
from worker.target.outcome import NotStarted, explain_error
from worker.target.watch import Watch

log = structlog.stdlib.get_logger(__name__)

# A claimed exec is started at most this long after the delivery deadline.
_START_GRACE_SECONDS = 60
_TOO_LATE = Failure(
    Reason.EXPIRED,
    "the worker that made its exec died before the start; it is too late to start it",
)


class StartUnheard(Exception):
    """The start did not reach the engine. The message must come again: then the exec is started."""


class Runner:
    """Runs targets on one node."""

    def __init__(
        self,
        engine: Engine,
        exit_codes: ExitCodes,
        node_id: str,
        commands: Commands,
        spools: SpoolDirectory,
        redact: bool,
    ) -> None:
        self._engine = engine
        self._exit_codes = exit_codes
        self._node_id = node_id
        self._commands = commands
        self._spools = spools
        self._redact = redact
        self._adopter = Adopter(engine, exit_codes, commands)

    def run(self, message: Received, give_place_back: Callable[[], None] = lambda: None) -> None:
        """Brings the message's target to its end; returns when the message may be deleted.

        The caller holds the target's execution meanwhile. Calls `give_place_back` if the command runs
        already, and we only wait for its end. Raises if it cannot go on now: then the message must come
        again.
        """
        try:
            self._run(message, give_place_back)
        except ExecutionNotFound as error:
            log.warning("dropped a message of an unknown execution", error=error.message)

    def is_taken_up(self, target: TargetMessage) -> bool:
        """Whether a worker took the target up before: its command may run, or be over."""
        return store.results.get_result(*target.result_ids) is not None

    def _run(self, message: Received, give_place_back: Callable[[], None]) -> None:
        target = message.target
        if not self._commands.is_target(target, self._node_id):
            log.warning("dropped a message of no target", node_id=self._node_id)
            return
        # When a message comes for the first time, there is no result yet. There are rare exceptions, and
        # the claim finds those.
        found = None if message.first else store.results.get_result(*target.result_ids)
        if not found:
            if claimed := claim(self._engine, self._node_id, self._commands, target):
                if claimed.Status == Status.CREATED:
                    self._start(target, claimed)
                return
            # Another worker claimed it just now, and our message may be the only one.
            found = store.results.get_result(*target.result_ids)
        if found and found.Status not in TERMINAL:
            give_place_back()
            owner = Owner.HOLDS_ANOTHER_MESSAGE if message.first else Owner.LOST_THIS_MESSAGE
            if not self._adopter.adopt(target, found, owner):
                self._start(target, found)

    def _start(self, target: TargetMessage, result: Result) -> None:
        """Starts a claimed exec and brings it to its end; adopts it if another worker started it."""
        try:
            command = self._commands.load(target)
        except SecretsUnreadable as error:
            ending.store_failure(result, explain_error(error))
            return
        if _is_too_late(command):
            ending.store_failure(result, _TOO_LATE)
            return
        try:
            self._execute(target, command, result)
        except AlreadyStarted:
            if not self._adopter.adopt(target, result, Owner.HOLDS_ANOTHER_MESSAGE):
                raise

    def _execute(self, target: TargetMessage, command: Command, result: Result) -> None:
        """Starts the exec, watches it, stores its log, and then how it ended. Raises AlreadyStarted."""
        log_object = GrowingObject(log_key(*target.ids))
        spool = self._spools.open(result.ID, log_object, command.tail, command.log_bytes)
        with closing(spool):
            attachment = self._attach(command, result, spool)
            ended = Watch(self._engine, self._exit_codes, result, attachment).until_end()
            if isinstance(ended, NotStarted):
                raise StartUnheard("the next delivery starts the exec")
            # The rest of the log comes only now: in some minutes, the engine forgets how it ended.
            whole = not ended.output_incomplete
            output = ending.keep_output(spool, result.ID, known_as_whole=whole)
            if ended.output_incomplete or output.incomplete:
                log.warning("output incomplete", exec_id=result.ID, error=str(attachment.error))
            if not ending.store_end(command, result, ended, output):
                # The end that another worker stored says that output may be missing. So its readers look
                # into the log: the log should have all of it.
                ending.complete_log(spool, result.ID)

    def _attach(self, command: Command, result: Result, spool: Spool) -> Attachment:
        """Starts the exec in the thread that reads its output: no output comes before its reader."""
        hidden = command.needles if self._redact else Needles([])

        def start_and_read() -> None:
            with closing(self._engine.start(result.ID)) as output:
                read(output, spool, hidden)

        result.StartTime = time.time()
        attachment = Attachment(start_and_read, spool, result)
        attachment.begin()
        return attachment


def _is_too_late(command: Command) -> bool:
    latest = command.created + settings.delivery_deadline_seconds + _START_GRACE_SECONDS
    return time.time() > latest
