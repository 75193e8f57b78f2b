"""Follows one engine's events and keeps the exit codes of its execs. One thread per engine.

If a command printed after its reader was gone, only the event of its end has the true exit code. The
engine remembers its last 256 events. On a node with many health checks, which are execs too, that is half
a minute. So a worker reads the remembered events as soon as it starts, long before it adopts anything.
It reads the next ones as they come. It also writes the exit codes to disk: if the next worker comes late,
the engine may have forgotten these events.
"""

import threading
import time
from datetime import UTC, datetime

import structlog

from worker import metrics
from worker.engine.client import Engine
from worker.engine.exit_file import ExecEnd, ExitFile
from worker.health import Pulse

log = structlog.stdlib.get_logger(__name__)

# How many of the newest ends are kept, of all execs: 2 MB. They reach further back than an engine
# remembers a finished exec, unless more than 15 execs end each second.
_KEPT = 10_000
# The engine first copies the output, then sends the event of the end: up to 2 s after the end.
_EVENT_SECONDS = 5.0
# Between two tries to reach an engine.
_PAUSE_SECONDS = 2


class ExitCodes(threading.Thread):
    """The exit codes of an engine's execs. Follows its events for ever, also over its restarts."""

    def __init__(self, engine: Engine, file: ExitFile, pulse: Pulse) -> None:
        super().__init__(name=f"events {engine.url}", daemon=True)
        self._engine = engine
        self._file = file
        self._pulse = pulse
        self._changed = threading.Condition()
        # By exec: its exit code, and when that came, by the engine's clock. The oldest is first.
        self._ends: dict[str, tuple[int, float]] = {}
        # The exec of the last event, and when that came, in nanoseconds.
        self._last: tuple[str, int] = ("", 0)
        # From this time on, no event was missed.
        self._since = time.time()
        for end in file.read():
            self._last, self._since = (end.exec_id, end.when), end.since
            self._keep(end.exec_id, end.exit_code, end.when / 1e9)
        metrics.EXIT_CODES.labels(engine.url).set_function(lambda: len(self._ends))

    @property
    def since(self) -> str:
        """Since when all ends are known, as a text for people."""
        return datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds")

    def find(self, exec_id: str) -> int | None:
        """The exit code of an exec; None if no event has brought it yet."""
        code, _ = self._ends.get(exec_id, (None, 0))
        return code

    def wait_for(self, exec_id: str) -> int | None:
        """The exit code of an exec that is over. Waits some seconds for its event; None if none comes."""
        with self._changed:
            self._changed.wait_for(lambda: exec_id in self._ends, _EVENT_SECONDS)
        return self.find(exec_id)

    def run(self) -> None:
        reached = False
        while True:
            self._pulse.beat()
            try:
                if not reached:
                    # A new connection each time: the engine that comes back may be another version.
                    self._engine.connect()
                reached = True
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it was, the engine may come back
                reached = False
                log.warning("events not followed", engine=self._engine.url, error=str(error))
                metrics.RETRIES.labels("events").inc()
                time.sleep(_PAUSE_SECONDS)

    def _follow(self) -> None:
        """Keeps the ends until the engine is silent for a while. Raises Unreachable, Refusal."""
        (last, when), first = self._last, True
        for exec_id, code, came in self._engine.follow_ends(when):
            self._pulse.beat()
            # If the engine remembers the last event that we had, it begins with that one. If it does not,
            # we may have missed some.
            if first and exec_id != last:
                self._since = time.time()
            first = False
            self._last = (exec_id, came)
            is_new = exec_id not in self._ends
            self._keep(exec_id, code, came / 1e9)
            if is_new:
                self._file.add(ExecEnd(exec_id, code, came, self._since))

    def _keep(self, exec_id: str, code: int, when: float) -> None:
        with self._changed:
            self._ends[exec_id] = (code, when)
            while len(self._ends) > _KEPT:
                _, self._since = self._ends.pop(next(iter(self._ends)))
            self._changed.notify_all()
