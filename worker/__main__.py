"""`python -m worker`: wires the worker together and heeds signals.

The first SIGTERM or SIGINT drains: no new messages, running commands end. The second lets go: messages
become visible for the next worker to adopt, commands run on. The third exits at once.

The worker also lets go when one of its loops dies of an error: its supervisor starts it anew.
"""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

import structlog

from chalicelib import store, telemetry
from chalicelib.config import settings
from worker.config import load
from worker.consumer import Consumer
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.lease import Lease
from worker.output.spool import SpoolDirectory, UnsafeFolder
from worker.target.command import Commands

log = structlog.stdlib.get_logger("worker")

_LET_GO = 2
# Between two looks at the loops, in seconds.
_LOOK = 1.0


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

    def wait(self, seconds: float) -> None:
        """Until the next signal, or so many seconds."""
        with suppress(Empty):
            self._wake.get(timeout=seconds)


def main() -> int:
    """Runs until drained; returns the exit code."""
    telemetry.configure(settings.log_level)
    try:
        worker = load(os.environ)
        spools = SpoolDirectory(worker.spool_dir, worker.spool_bytes, worker.log_bytes)
    except (ValueError, UnsafeFolder, OSError) as error:
        log.error("wrong setting", error=str(error))
        return 2
    threading.excepthook = _log_death
    _allow_open_files()
    signals = Signals()
    store.connect()
    health = Health()
    lease = Lease(health.pulse("lease"))
    lease.start()
    heartbeat = Heartbeat(worker.worker_id, health.pulse("heartbeat"))
    heartbeat.start()
    commands = Commands()
    consumers = [
        Consumer(url, worker, lease, heartbeat, health, commands, spools) for url in worker.engines
    ]
    health.serve(worker.health_port)
    followers = [consumer.exit_codes for consumer in consumers]
    # Before they wait for AWS: the engines forget.
    for loop in (*followers, *consumers):
        loop.start()
    while not signals.count:
        if _dead([lease, heartbeat, *followers, *consumers]):
            _let_go(lease, consumers)
        signals.wait(_LOOK)
    log.info("draining")
    for consumer in consumers:
        consumer.drain()
    while any(consumer.is_alive() for consumer in consumers):
        if signals.count >= _LET_GO or _dead([lease, heartbeat, *followers]):
            _let_go(lease, consumers)
        signals.wait(0.1)
    spools.close()
    log.info("drained")
    return 0


def _allow_open_files() -> None:
    """Each command has a connection and a file open; a shell's usual 1,024 would be too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log_death(death: threading.ExceptHookArgs) -> None:
    name = death.thread.name if death.thread else None
    log.critical("thread died", thread=name, exc_info=death.exc_value)


def _dead(loops: Iterable[threading.Thread]) -> list[str]:
    """The loops that are over though nobody told them to end: without them, a worker only looks alive."""
    if dead := [loop.name for loop in loops if not loop.is_alive()]:
        log.critical("a loop is over before its time", loops=dead)
    return dead


def _let_go(lease: Lease, consumers: Iterable[Consumer]) -> NoReturn:
    log.info("letting go")
    for consumer in consumers:
        consumer.drain()
    lease.release_all()
    # A poll of ours that is under way may get them; it puts them back.
    time.sleep(_LOOK)
    # Threads still wait for their commands; the interpreter would wait for them.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
