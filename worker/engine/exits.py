"""How one engine's execs ended, as its events tell. One thread per engine.

For a command that printed after its reader was gone, only the event of its end has the true exit code.
The engine remembers its last 256 events, which is half a minute on a node with many health checks: they
are execs too. So the events that it remembers are read as soon as a worker starts, long before it adopts
anything, and the next ones as they come. What was told is on disk too: the next worker may be late.
"""

import threading
import time
from datetime import UTC, datetime

import structlog

from worker import metrics
from worker.engine.client import Engine
from worker.engine.exit_file import ExitFile, Told
from worker.health import Pulse

log = structlog.stdlib.get_logger(__name__)

# The newest ends are kept, whoever's they are: 2 MB. They reach further back than an engine remembers a
# finished exec, but where more than 15 of them end each second.
_KEPT = 10_000
# The engine tells of an end when it has copied the output, up to 2 s later.
_TOLD_WITHIN = 5.0
# Between two tries to reach an engine, in seconds.
_PAUSE = 2


class Exits(threading.Thread):
    """Follows an engine's events as long as the process lives, also when the engine is started anew."""

    def __init__(self, engine: Engine, file: ExitFile, pulse: Pulse) -> None:
        super().__init__(name=f"events {engine.url}", daemon=True)
        self._engine = engine
        self._file = file
        self._pulse = pulse
        self._told = threading.Condition()
        # Exit codes by exec, and when they came by the engine's clock: the oldest first.
        self._ends: dict[str, tuple[int, float]] = {}
        self._last: tuple[str, int] = ("", 0)
        # From when on there is no gap in what is known.
        self._since = time.time()
        for told in file.read():
            self._last, self._since = (told.exec_id, told.when), told.since
            self._keep(told.exec_id, told.exit_code, told.when / 1e9)
        metrics.EXIT_CODES.labels(engine.url).set_function(lambda: len(self._ends))

    @property
    def since(self) -> str:
        """From when on all ends are known, for people."""
        return datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds")

    def known(self, exec_id: str) -> int | None:
        """The exit code, None as long as none was told."""
        code, _ = self._ends.get(exec_id, (None, 0))
        return code

    def told(self, exec_id: str) -> int | None:
        """The exit code of an exec that is over; None where the engine does not tell it any more."""
        with self._told:
            self._told.wait_for(lambda: exec_id in self._ends, _TOLD_WITHIN)
        return self.known(exec_id)

    def run(self) -> None:
        reached = False
        while True:
            self._pulse.beat()
            try:
                if not reached:
                    # Anew each time: the engine that comes back may be another version.
                    self._engine.connect()
                reached = True
                self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it was, the engine may come back
                reached = False
                log.warning("events not followed", engine=self._engine.url, error=str(error))
                metrics.RETRIES.labels("events").inc()
                time.sleep(_PAUSE)

    def _follow(self) -> None:
        """Takes up what is told, until the engine is silent for a while. Raises Unreachable, Refusal."""
        (last, when), first = self._last, True
        for exec_id, code, told in self._engine.ends(when):
            self._pulse.beat()
            # The engine begins with the one that we had last, unless it has forgotten that.
            if first and exec_id != last:
                self._since = time.time()
            first = False
            self._last = (exec_id, told)
            is_new = exec_id not in self._ends
            self._keep(exec_id, code, told / 1e9)
            if is_new:
                self._file.add(Told(exec_id, code, told, self._since))

    def _keep(self, exec_id: str, code: int, when: float) -> None:
        with self._told:
            self._ends[exec_id] = (code, when)
            while len(self._ends) > _KEPT:
                _, self._since = self._ends.pop(next(iter(self._ends)))
            self._told.notify_all()
