"""Watches an exec until it has ended, and returns how.

Three sources say how it ended: the output, which the engine closes when the command is over; the
engine's inspect of the exec; and the event of its end.
"""

import time
from dataclasses import dataclass

import structlog

from chalicelib.domain.exec_inspect import Inspect
from chalicelib.domain.results import Failure
from chalicelib.domain.states import MEANINGS, Reason
from chalicelib.store.models import Result
from worker import metrics
from worker.engine.client import Engine
from worker.engine.errors import AlreadyStarted, Refusal, UnknownExec, Unreachable
from worker.engine.events import ExitCodes
from worker.target.attachment import Attachment, NoAttachment
from worker.target.outcome import Ended, NotStarted, explain_error

log = structlog.stdlib.get_logger(__name__)

# After the output has ended, we look at the exec again and again. The pauses grow from the first to the
# longest.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 2.0
# The engine ends the output when the command is over. If the command still runs this long after the
# output's end, the connection was cut.
CUT_AFTER_SECONDS = 1.0
# Between two looks at whether the engine still knows an exec whose output it holds open. We look seldom:
# there may be a thousand such execs, and only an engine that got stuck in a start forgets one.
_KNOWN_SECONDS = 300
# If an engine has not answered for this long, it will not say any more how an exec ended: when it comes
# back, it has forgotten that.
_ENGINE_GONE_SECONDS = 3600
# The exit code that engines report for a command that printed after its reader was gone.
_READER_GONE_CODE = 126
# The exit code in the event of its end, if the engine had lost sight of the command by then.
_LOST_SIGHT_CODE = 127


@dataclass(frozen=True)
class _Look:
    """What one look at the exec showed."""

    # None while the command may run.
    end: Inspect | Failure | NotStarted | None
    # Whether the look showed that some of the output may never have reached us.
    output_cut: bool = False


_NOT_OVER = _Look(None)


class Watch:
    """Watches one exec. `result` names it, and `attachment` has its output."""

    def __init__(
        self,
        engine: Engine,
        exit_codes: ExitCodes,
        result: Result,
        attachment: Attachment | NoAttachment,
    ) -> None:
        self._engine = engine
        self._exit_codes = exit_codes
        self._exec_id, self._container_id = result.ID, result.ContainerId
        self._attachment = attachment
        self._output_open = True
        self._output_incomplete = False
        now = time.monotonic()
        self._output_ended_at = self._answered_at = self._known_at = now
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def until_end(self) -> Ended | NotStarted:
        """Waits until the exec has ended, however long that takes, and returns how.

        Only this loop waits for a command, and each turn lasts a few seconds. So whatever may end a
        command early must be checked here. Raises AlreadyStarted.
        """
        while True:
            ended = self._follow_output() if self._output_open else self._look_for_end()
            if ended:
                return ended

    def _follow_output(self) -> Ended | None:
        """Stays with the output for some seconds. Returns an end only if the engine refused the start."""
        if not self._attachment.stay() and not self._is_forgotten():
            return None
        self._output_open = False
        self._output_ended_at = self._answered_at = time.monotonic()
        error = self._attachment.error
        if isinstance(error, AlreadyStarted):
            raise error
        if isinstance(error, Refusal) and not self._may_run():
            return Ended(explain_error(error), output_incomplete=False)
        self._output_incomplete = self._attachment.output_incomplete
        return None

    def _is_forgotten(self) -> bool:
        """Whether the engine holds the output open for an exec that it does not know any more.

        That output never ends.
        """
        if time.monotonic() - self._known_at <= _KNOWN_SECONDS:
            return False
        self._known_at = time.monotonic()
        if self._attachment.waits_for_room:
            return False
        try:
            self._engine.inspect(self._exec_id)
        except UnknownExec:
            return True
        except (Refusal, Unreachable) as error:
            log.info("exec not inspected", error=str(error))
        return False

    def _may_run(self) -> bool:
        """Whether an engine that failed in the middle of a start has, or may have, started the exec."""
        try:
            return bool(self._engine.inspect(self._exec_id)["Running"])
        except Unreachable:
            return True
        except (Refusal, UnknownExec):
            return False

    def _look_for_end(self) -> Ended | NotStarted | None:
        """Looks whether the exec is over; if it is not, waits a moment."""
        look = self._look()
        self._output_incomplete = self._output_incomplete or look.output_cut
        if look.end is None:
            time.sleep(self._pause_seconds)
            self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
            return None
        if isinstance(look.end, NotStarted):
            return look.end
        return Ended(look.end, self._output_incomplete)

    def _look(self) -> _Look:
        try:
            look = self._inspect()
        except UnknownExec:
            return _Look(Failure(Reason.LOST, self._why_unknown()), output_cut=True)
        except Unreachable as error:
            log.warning("engine unreachable", error=str(error))
            metrics.RETRIES.labels("inspect").inc()
            # The fault that cut this connection may have cut the output too, although it looked ended.
            return _Look(self._give_up_after_silence(), output_cut=True)
        self._answered_at = time.monotonic()
        return look

    def _give_up_after_silence(self) -> Failure | None:
        if time.monotonic() - self._answered_at <= _ENGINE_GONE_SECONDS:
            return None
        silence = f"the engine has been silent for {_ENGINE_GONE_SECONDS} s"
        return Failure(Reason.LOST, f"{silence}; how it ended is lost")

    def _inspect(self) -> _Look:
        """Asks the engine once. Raises UnknownExec, Unreachable."""
        since_output = time.monotonic() - self._output_ended_at
        try:
            inspect = self._engine.inspect(self._exec_id)
        except Refusal as refusal:
            if MEANINGS[refusal.reason].container_is_away:
                return _Look(Failure(Reason.CONTAINER_GONE, str(refusal)))
            # Paused, or an error of the engine's own: the command is not over because of it.
            log.info("exec not inspected", error=str(refusal))
            return _NOT_OVER
        if inspect["Running"]:
            return _Look(None, output_cut=since_output > CUT_AFTER_SECONDS)
        if inspect["ExitCode"] is None:
            return _Look(NotStarted())
        # If it has no process, the command could not start, and no output was cut.
        if inspect["ExitCode"] == _READER_GONE_CODE and inspect["Pid"]:
            return self._look_without_reader(inspect)
        return _Look(inspect)

    def _look_without_reader(self, inspect: Inspect) -> _Look:
        """What we know of a command that the engine reports 126 for. It may have lost its reader.

        If a command prints after it lost its reader, the engine reports 126, whatever its real code is.
        If it prints to both stdout and stderr, the engine does so even before the command ends. The event
        of the end has the real code, unless the engine lost sight of the command. Raises Unreachable.
        """
        code = self._exit_codes.find(self._exec_id)
        if code is None and self._is_alive(inspect["Pid"]):
            return _Look(None, output_cut=True)
        code = self._exit_codes.wait_for(self._exec_id)
        if code in (None, _LOST_SIGHT_CODE) and self._output_incomplete:
            return _Look(Failure(Reason.LOST, why_lost(code, self._exit_codes.since)))
        if code in (None, _LOST_SIGHT_CODE, _READER_GONE_CODE):
            return _Look(inspect)
        return _Look({**inspect, "ExitCode": code}, output_cut=True)

    def _is_alive(self, pid: int) -> bool:
        try:
            return self._engine.is_alive(self._container_id, pid)
        except Refusal as refusal:
            log.info("no processes", error=str(refusal))
            return False

    def _why_unknown(self) -> str:
        code = self._exit_codes.find(self._exec_id)
        known = "how it ended is lost" if code is None else f"by its events it ended with {code}"
        return f"the engine does not know this exec any more; {known}"


def why_lost(code: int | None, followed_since: str) -> str:
    """Says why nobody knows how a command without a reader ended; `code` is what its event says."""
    if code == _LOST_SIGHT_CODE:
        return (
            "the command is over; it lost its reader, and the engine lost sight of it: the 127 in "
            "the event of its end need not be its own exit code"
        )
    return (
        "the command is over; its exit code was lost with its output. The engine had forgotten the "
        f"event of its end when a worker began to follow its events, at {followed_since}"
    )
