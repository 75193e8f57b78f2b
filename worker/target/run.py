"""A target's life: makes and claims its exec, starts and watches it, and stores its end.

A command runs at most once: only an exec whose ID is in the result is ever started, and the engine
starts an exec only once. If a worker dies in between, the message comes again, and the next worker
adopts the target.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import structlog

from chalicelib import store
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.ends import End
from chalicelib.domain.errors import ExecutionNotFound, SecretsUnreadable
from chalicelib.domain.results import Failure, has_succeeded
from chalicelib.domain.segments import log_name
from chalicelib.domain.states import TERMINAL, Reason
from chalicelib.store.models import Result
from worker.engine.client import Engine
from worker.engine.errors import AlreadyStarted
from worker.engine.events import ExitCodes
from worker.output.growth import GrowingLog
from worker.output.outputs import Outputs
from worker.output.reader import read
from worker.output.redact import Needles
from worker.output.spool import Spool
from worker.patience import insist
from worker.target import ending
from worker.target.adopt import Adopter, Owner
from worker.target.attachment import Attachment
from worker.target.claim import claim
from worker.target.command import Command, Commands
from worker.target.outcome import NotStarted, StoredEnd, explain_error
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


class NotOver(Exception):
    """The target has no end yet, although we did not store one. The message must come again."""


class Runner:
    """Runs targets on one node."""

    def __init__(
        self,
        engine: Engine,
        exit_codes: ExitCodes,
        node_id: str,
        commands: Commands,
        outputs: Outputs,
        redact: bool,
    ) -> None:
        self._engine = engine
        self._exit_codes = exit_codes
        self._node_id = node_id
        self._commands = commands
        self._outputs = outputs
        self._redact = redact
        self._adopter = Adopter(engine, exit_codes, commands, outputs.salvager)

    def run(
        self, message: Received, give_place_back: Callable[[], None] = lambda: None
    ) -> StoredEnd | None:
        """Brings the message's target to its end. Returns the end that is stored, whoever stored it.

        None if the message is of no target. The caller holds the target's execution meanwhile. Calls
        `give_place_back` if the command runs already, and we only wait for its end. Raises if it cannot
        go on now: then the message must come again.
        """
        target = message.target
        try:
            place = self._commands.place_of(target, self._node_id)
            if place is None:
                log.warning("dropped a message of no target", node_id=self._node_id)
                return None
            stored = self._bring_to_end(message, give_place_back) or _read_end(target)
        except ExecutionNotFound as error:
            log.warning("dropped a message of an unknown execution", error=error.message)
            return None
        succeeded = has_succeeded(stored.Status, stored.Inspect)
        end = End(place.position, succeeded, stored.EndTime)
        return StoredEnd(end, place.part, place.part_size, int(stored.ExpiresAt))

    def is_taken_up(self, target: TargetMessage) -> bool:
        """Whether a worker took the target up before: its command may run, or be over."""
        return store.results.get_result(*target.result_ids) is not None

    def _bring_to_end(
        self, message: Received, give_place_back: Callable[[], None]
    ) -> Result | None:
        """Returns the stored result, if we know it: the one that we stored, or that was there."""
        target = message.target
        # When a message comes for the first time, there is no result yet. There are rare exceptions, and
        # the claim finds those.
        found = None if message.first else store.results.get_result(*target.result_ids)
        if not found:
            if claimed := claim(self._engine, self._node_id, self._commands, target):
                return claimed if claimed.Status in TERMINAL else self._start(target, claimed)
            # Another worker claimed it just now, and our message may be the only one.
            found = store.results.get_result(*target.result_ids)
        if found is None or found.Status in TERMINAL:
            return found
        give_place_back()
        owner = Owner.HOLDS_ANOTHER_MESSAGE if message.first else Owner.LOST_THIS_MESSAGE
        if self._adopter.adopt(target, found, owner):
            return None
        return self._start(target, found)

    def _start(self, target: TargetMessage, result: Result) -> Result | None:
        """Starts a claimed exec and brings it to its end; adopts it if another worker started it.

        Returns the result if we stored its end.
        """
        try:
            command = self._commands.load(target)
        except SecretsUnreadable as error:
            is_ours = ending.store_failure(result, explain_error(error))
            return result if is_ours else None
        if _is_too_late(command):
            return result if ending.store_failure(result, _TOO_LATE) else None
        try:
            return result if self._execute(target, command, result) else None
        except AlreadyStarted:
            if not self._adopter.adopt(target, result, Owner.HOLDS_ANOTHER_MESSAGE):
                raise
            return None

    def _execute(self, target: TargetMessage, command: Command, result: Result) -> bool:
        """Starts the exec, watches it, stores its log, and then how it ended. Raises AlreadyStarted.

        Returns False if another worker stored an end first.
        """
        with self._open_log(target, command, result) as growing:
            spool = growing.spool
            attachment = self._attach(command, result, spool)
            ended = Watch(self._engine, self._exit_codes, result, attachment).until_end()
            if isinstance(ended, NotStarted):
                raise StartUnheard("the next delivery starts the exec")
            self._outputs.uploader.leave(growing)
            # The log is put together only now: in some minutes, the engine forgets how the command ended.
            whole = not ended.output_incomplete
            output = ending.keep_output(growing, result.ID, known_as_whole=whole)
            if ended.output_incomplete or output.incomplete:
                log.warning("output incomplete", exec_id=result.ID, error=str(attachment.error))
            is_first = ending.store_end(command, result, ended, output)
            if not is_first:
                # The end that another worker stored says that output may be missing. So its readers look
                # for the log: it should have all of it.
                ending.complete_log(growing, result.ID, known_as_whole=False)
            self._outputs.uploader.discard(growing)
            return is_first

    def _open_log(
        self, target: TargetMessage, command: Command, result: Result
    ) -> AbstractContextManager[GrowingLog]:
        name = log_name(*target.ids)
        return self._outputs.open(result.ID, name, command.expires, command.tail, command.log_bytes)

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


def _read_end(target: TargetMessage) -> Result:
    """The end that another worker stored. Raises NotOver if there is none."""
    stored = insist(lambda: store.results.get_result(*target.result_ids))
    if stored is None or stored.Status not in TERMINAL:
        raise NotOver("another worker stores the end, or the next delivery")
    return stored


def _is_too_late(command: Command) -> bool:
    latest = command.created + settings.delivery_deadline_seconds + _START_GRACE_SECONDS
    return time.time() > latest
