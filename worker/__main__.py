"""`python -m worker`: wires the worker together and listens to signals.

The first SIGTERM or SIGINT drains: no new messages, running commands end. The second lets go: messages
become visible for the next worker to adopt, commands run on. The third exits at once.

The worker also lets go when one of its loops dies of an error: then its supervisor starts it again.
"""

import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

import structlog

from chalicelib import store, telemetry
from chalicelib.config import settings
from worker.config import WorkerSettings, load
from worker.consumer import Consumer
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.lease import Lease
from worker.output.spool import SpoolDirectory, UnsafeFolder
from worker.target.command import Commands

log = structlog.stdlib.get_logger("worker")

# The second signal; one more ends the process.
_LET_GO = 2
# Between two looks at the loops.
_LOOK_SECONDS = 1.0
# The same while the worker drains, which should not take longer than its last command.
_DRAIN_LOOK_SECONDS = 0.1


class Signals:
    """Counts the signals. Each one wakes `wait`, the third ends the process."""

    def __init__(self) -> None:
        self.count = 0
        # A handler may interrupt the thread that waits; a SimpleQueue is made to be filled from one.
        self._wake: SimpleQueue[None] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > _LET_GO:
            os._exit(1)
        self._wake.put(None)

    def wait(self, seconds: float) -> None:
        """Returns at the next signal, or after so many seconds."""
        with suppress(Empty):
            self._wake.get(timeout=seconds)


@dataclass(frozen=True)
class Loops:
    """The threads that make up a worker."""

    lease: Lease
    heartbeat: Heartbeat
    consumers: list[Consumer]

    @property
    def _endless(self) -> list[threading.Thread]:
        return [self.lease, self.heartbeat, *(consumer.exit_codes for consumer in self.consumers)]

    def start(self) -> None:
        """Starts them. Events are followed before a consumer waits for AWS: the engines forget."""
        for loop in (*self._endless, *self.consumers):
            loop.start()

    def serve(self, signals: Signals) -> None:
        """Serves until the first signal, then drains; lets go if a loop dies, or at the second signal."""
        while not signals.count:
            if _any_dead([*self._endless, *self.consumers]):
                self._let_go()
            signals.wait(_LOOK_SECONDS)
        log.info("draining")
        for consumer in self.consumers:
            consumer.drain()
        while any(consumer.is_alive() for consumer in self.consumers):
            if signals.count >= _LET_GO or _any_dead(self._endless):
                self._let_go()
            signals.wait(_DRAIN_LOOK_SECONDS)

    def _let_go(self) -> NoReturn:
        log.info("letting go")
        for consumer in self.consumers:
            consumer.drain()
        self.lease.release_all()
        # A poll of ours that is under way may receive the messages; it puts them back.
        time.sleep(_LOOK_SECONDS)
        # Threads still wait for their commands, and the interpreter would wait for the threads.
        os._exit(1)


def main() -> int:
    """Runs until drained; returns the exit code."""
    telemetry.configure(settings.log_level)
    try:
        worker_settings = load(os.environ)
        spools = SpoolDirectory(
            worker_settings.spool_dir, worker_settings.spool_bytes, worker_settings.log_bytes
        )
    except (ValueError, UnsafeFolder, OSError) as error:
        log.error("wrong setting", error=str(error))
        return 2
    threading.excepthook = _log_death
    _allow_open_files()
    signals = Signals()
    store.connect()
    health = Health()
    loops = _wire(worker_settings, health, spools)
    health.serve(worker_settings.health_port)
    loops.start()
    loops.serve(signals)
    spools.close()
    log.info("drained")
    return 0


def _wire(worker_settings: WorkerSettings, health: Health, spools: SpoolDirectory) -> Loops:
    lease = Lease(health.pulse("lease"))
    heartbeat = Heartbeat(worker_settings.worker_id, health.pulse("heartbeat"))
    commands = Commands()
    consumers = [
        Consumer(url, worker_settings, lease, heartbeat, health, commands, spools)
        for url in worker_settings.engines
    ]
    return Loops(lease, heartbeat, consumers)


def _allow_open_files() -> None:
    """Each command has a connection and a file open; a shell's usual 1,024 would be too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log_death(death: threading.ExceptHookArgs) -> None:
    name = death.thread.name if death.thread else None
    log.critical("thread died", thread=name, exc_info=death.exc_value)


def _any_dead(loops: list[threading.Thread]) -> bool:
    """Whether a loop is over that nobody told to end: without it, a worker only looks alive."""
    if dead := [loop.name for loop in loops if not loop.is_alive()]:
        log.critical("a loop is over before its time", loops=dead)
    return bool(dead)


if __name__ == "__main__":
    sys.exit(main())
