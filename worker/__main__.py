"""`python -m worker`: wires the worker together and heeds signals.

The first SIGTERM or SIGINT drains: no new messages, running commands end. The second lets go: messages
become visible for the next worker to adopt, commands run on. The third exits at once.
"""

import os
import signal
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from chalicelib import store, telemetry
from chalicelib.config import settings
from worker.config import load
from worker.consumer import Consumer
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.lease import Lease
from worker.output import SpoolDirectory

log = structlog.stdlib.get_logger("worker")

_LET_GO = 2


class Signals:
    """Counts the signals; a second one wakes `wait`, a third ends the process."""

    def __init__(self) -> None:
        self.count = 0
        # A handler may interrupt whoever waits: of the ways to wake it, this one is made for that.
        self._wake: SimpleQueue[None] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > _LET_GO:
            os._exit(1)
        self._wake.put(None)

    def wait(self, seconds: float | None = None) -> None:
        """Until the next signal, or so many seconds."""
        with suppress(Empty):
            self._wake.get(timeout=seconds)


def main() -> int:
    """Runs until drained; returns the exit code."""
    telemetry.configure(settings.log_level)
    try:
        worker = load(os.environ)
    except ValueError as error:
        log.error("wrong setting", error=str(error))
        return 2
    signals = Signals()
    store.connect()
    health = Health()
    lease = Lease(health.pulse("lease"))
    lease.start()
    heartbeat = Heartbeat(worker.worker_id, health.pulse("heartbeat"))
    heartbeat.start()
    spools = SpoolDirectory(worker.spool_dir, worker.spool_bytes)
    consumers = [Consumer(url, worker, lease, heartbeat, health, spools) for url in worker.engines]
    health.serve(worker.health_port)
    for consumer in consumers:
        consumer.start()
    signals.wait()
    log.info("draining")
    for consumer in consumers:
        consumer.drain()
    while any(consumer.is_alive() for consumer in consumers) and signals.count < _LET_GO:
        signals.wait(0.1)
    return _leave(lease, spools, signals)


def _leave(lease: Lease, spools: SpoolDirectory, signals: Signals) -> int:
    if signals.count < _LET_GO:
        spools.close()
        log.info("drained")
        return 0
    log.info("letting go")
    lease.release_all()
    # Threads still wait for their commands; the interpreter would wait for them.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
