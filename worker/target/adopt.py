"""Adoption: goes on with a target that another worker, or this one before its restart, took up.

An exec that was started is never started again: only its end is waited for.
"""

import time
from enum import Enum

import structlog

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.clients.queues import TargetMessage
from chalicelib.domain.errors import SecretsUnreadable
from chalicelib.domain.segments import log_name, total
from chalicelib.domain.states import TERMINAL
from chalicelib.store.models import Result
from worker import metrics
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.output.salvage import Salvager, put_together
from worker.patience import insist, insist_on_log
from worker.target import ending
from worker.target.attachment import NoAttachment
from worker.target.command import Command, Commands
from worker.target.outcome import LoggedOutput, NotStarted, explain_error
from worker.target.watch import CUT_AFTER_SECONDS, Watch

log = structlog.stdlib.get_logger(__name__)

# If the first worker may be alive, it gets this long to store the end itself: it has all of the output.
_LIVING_OWNER_SECONDS = 30
# The same for a worker that is most likely dead.
_DOUBTFUL_OWNER_SECONDS = 5
# Between two looks for the end that the first worker stores.
_LOOK_SECONDS = 2.0


class Owner(Enum):
    """What our message says of the worker that took the target up before us."""

    # Our message is another one of the same target. Nothing says that the owner of the first one died.
    HOLDS_ANOTHER_MESSAGE = "holds another message"
    # Our message came again. Its owner is dead, or could not hold it while SQS was away.
    LOST_THIS_MESSAGE = "lost this message"


class Adopter:
    """Adopts targets on one engine."""

    def __init__(
        self, engine: Engine, exit_codes: ExitCodes, commands: Commands, salvager: Salvager
    ) -> None:
        self._engine = engine
        self._exit_codes = exit_codes
        self._commands = commands
        self._salvager = salvager

    def adopt(self, target: TargetMessage, result: Result, owner: Owner) -> bool:
        """Waits for the end of the target's exec. Stores the end, unless the owner does.

        Returns False if the exec was never started: then we may start it.
        """
        log.info("adopting", exec_id=result.ID, status=result.Status)
        metrics.ADOPTED.inc()
        began = time.monotonic()
        ended = Watch(self._engine, self._exit_codes, result, NoAttachment()).until_end()
        if isinstance(ended, NotStarted):
            return False
        was_watched = time.monotonic() - began > CUT_AFTER_SECONDS
        if _is_stored_within(_owner_seconds(owner, was_watched), target):
            return True
        try:
            command = insist(lambda: self._commands.load(target))
        except SecretsUnreadable as error:
            # Nothing of the command can be shown: without its secrets, we cannot know what to hide.
            ending.store_failure(result, explain_error(error), ended.output_incomplete)
        else:
            ending.store_end(command, result, ended, self._find_output(target, command, result.ID))
        return True

    def _find_output(self, target: TargetMessage, command: Command, exec_id: str) -> LoggedOutput:
        """What there is of the output: what the former worker uploaded, or had on this machine's disk."""
        name = log_name(*target.ids)
        try:
            insist_on_log(lambda: self._salvager.salvage(name))
        except Exception:  # what is uploaded already is there all the same
            log.exception("spool not salvaged", exec_id=exec_id)
        try:
            return insist_on_log(lambda: _gather_log(name, command.expires, command.tail))
        except Exception:  # whatever S3 says, how the command ended must not be lost with the log
            log.exception("log not put together", exec_id=exec_id)
            return LoggedOutput()


def _owner_seconds(owner: Owner, was_watched: bool) -> float:
    """How long to wait for the owner to store the end.

    If the command was over at our first look, an owner that lost its message has not stored the end, and
    will not do so.
    """
    if owner is Owner.HOLDS_ANOTHER_MESSAGE:
        return _LIVING_OWNER_SECONDS
    return _DOUBTFUL_OWNER_SECONDS if was_watched else 0


def _is_stored_within(seconds: float, target: TargetMessage) -> bool:
    """Waits this many seconds for the target's end. Returns whether the owner stored it in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = insist(lambda: store.results.get_result(*target.result_ids))
        if result is None or result.Status in TERMINAL:
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _gather_log(name: str, expires: int, tail: int) -> LoggedOutput:
    """Puts the log together of what the former worker had uploaded; a short text only for the result."""
    state, spans = store.segments.list_segments(name)
    size = max(total(spans), state.assembled)
    if size <= tail and state.assembled < size:
        output = logs.read_segments(name, spans)
        if ending.is_text(output):
            return LoggedOutput(size, output)
    size = put_together(name, expires, state, spans)
    return LoggedOutput(size, logs.read_end(logs.whole_key(name, size), tail) if size else None)
