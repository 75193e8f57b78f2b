"""The signals that stop `make run`."""

import signal
import time
from dataclasses import dataclass, field
from types import FrameType

# `make` and a process group's signal may both bring the same wish.
SAME_WISH_SECONDS = 1.0


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came: stop all."""


@dataclass
class Signals:
    """The first signal interrupts the start or the serving; the later ones hurry the stop."""

    wishes: int = 0
    stopping: bool = False
    _last: float = field(default_factory=lambda: -SAME_WISH_SECONDS)

    def install(self) -> None:
        # SIGINT too: what a shell starts in the background ignores it.
        # SIGHUP comes when a terminal is closed.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        last, self._last = self._last, time.monotonic()
        if self._last - last < SAME_WISH_SECONDS:
            return
        self.wishes += 1
        if not self.stopping:
            self.stopping = True
            raise Interrupted
