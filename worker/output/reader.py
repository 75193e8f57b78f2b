"""Takes a command's output from the engine into the spool, without its secrets."""

import threading
from collections import defaultdict
from contextlib import closing

from worker import metrics
from worker.engine.client import Engine
from worker.output.redact import Needles, Redactor
from worker.output.spool import Spool


class Reader(threading.Thread):
    """Starts an exec and takes its output into the spool as fast as the engine gives it.

    What is `hidden` is taken out on the way.
    """

    def __init__(self, engine: Engine, exec_id: str, spool: Spool, hidden: Needles) -> None:
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
            with closing(self._engine.start(self._exec_id)) as output:
                for stream, chunk in output:
                    metrics.OUTPUT.inc(len(chunk))
                    self._spool.write(self._redactors[stream].feed(chunk))
        finally:
            for redactor in self._redactors.values():
                self._spool.write(redactor.flush())
            self._spool.complete()
