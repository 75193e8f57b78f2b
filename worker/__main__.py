"""`python -m worker`: wires the worker together and listens to signals.

The first SIGTERM or SIGINT drains: no new messages, running commands end. The second lets go: messages
become visible for the next worker to adopt, commands run on. The third exits at once.

The worker also lets go if one of its loops dies of an error. Then Swarm or systemd starts it again.
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
from worker.output.folder import UnsafeFolder
from worker.output.outputs import Outputs
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader
from worker.settler import Settler
from worker.target.command import Commands
from worker.wishes import WishReader

log = structlog.stdlib.get_logger("worker")

# At the second signal the worker lets go. One more ends the process.
_LET_GO = 2
# Between two looks at whether all loops are alive.
_LOOK_SECONDS = 1.0
# While the worker drains, it looks more often: a drain should end as soon as its last command has.
_DRAIN_LOOK_SECONDS = 0.1


class Signals:
    """Counts the signals. Each one wakes `wait`, the third ends the process."""

    def __init__(self) -> None:
        self.count = 0
        # A handler may interrupt the very thread that waits. A SimpleQueue allows a put even then.
        self._wake: SimpleQueue[None] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > _LET_GO:
            os._exit(1)
        self._wake.put(None)

    def wait(self, seconds: float) -> None:
        """Returns at the next signal, or after this many seconds."""
        with suppress(Empty):
            self._wake.get(timeout=seconds)


@dataclass(frozen=True)
class Loops:
    """The threads that make up a worker."""

    lease: Lease
    settler: Settler
    heartbeat: Heartbeat
    uploader: Uploader
    wishes: WishReader
    consumers: list[Consumer]

    @property
    def _endless(self) -> list[threading.Thread]:
        exit_codes = [consumer.exit_codes for consumer in self.consumers]
        loops = [self.lease, self.settler, self.heartbeat, self.uploader, self.wishes]
        return [*loops, *exit_codes]

    def start(self) -> None:
        """Starts the loops, the endless ones first.

        While a consumer waits for AWS, an engine may forget an event. So we follow the events before.
        """
        for loop in (*self._endless, *self.consumers):
            loop.start()

    def serve(self, signals: Signals) -> None:
        """Serves until the first signal, then drains; returns when it is drained.

        Lets go, and does not return, if a loop dies or at the second signal.
        """
        while not signals.count:
            if _any_dead([*self._endless, *self.consumers]):
                self._let_go()
            signals.wait(_LOOK_SECONDS)
        log.info("draining")
        for consumer in self.consumers:
            consumer.drain()
        self.settler.drain()
        while self._has_work():
            if signals.count >= _LET_GO or _any_dead(self._endless):
                self._let_go()
            signals.wait(_DRAIN_LOOK_SECONDS)

    def _has_work(self) -> bool:
        # In this order: a consumer hands its last ends to the settler before it ends itself.
        return any(one.is_alive() for one in self.consumers) or not self.settler.is_idle

    def _let_go(self) -> NoReturn:
        log.info("letting go")
        for consumer in self.consumers:
            consumer.drain()
        self.lease.release_all()
        # Our own poll may be under way and receive these messages. It needs a moment to put them back.
        time.sleep(_LOOK_SECONDS)
        # Threads still wait for their commands. The process does not wait for the threads.
        os._exit(1)


def main() -> int:
    """Runs the worker until it is drained. Returns the exit code: 0, or 2 if a setting is wrong."""
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
    _allow_more_open_files()
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
    settler = Settler(lease, health.pulse("settler"))
    heartbeat = Heartbeat(worker_settings.worker_id, health.pulse("heartbeat"))
    uploader = Uploader(health.pulse("uploads"))
    salvager = Salvager(spools.parent)
    salvager.claim()
    wishes = WishReader(health.pulse("wishes"), uploader)
    outputs = Outputs(spools, uploader, salvager)
    commands = Commands()
    consumers = [
        Consumer(url, worker_settings, lease, settler, heartbeat, health, commands, outputs)
        for url in worker_settings.engines
    ]
    return Loops(lease, settler, heartbeat, uploader, wishes, consumers)


def _allow_more_open_files() -> None:
    """Raises the limit: each command has a connection and a file open, and 1,024 would be too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _log_death(death: threading.ExceptHookArgs) -> None:
    name = death.thread.name if death.thread else None
    log.critical("thread died", thread=name, exc_info=death.exc_value)


def _any_dead(loops: list[threading.Thread]) -> bool:
    """Whether a loop has ended that should not have. Without it, the worker only looks alive."""
    if dead := [loop.name for loop in loops if not loop.is_alive()]:
        log.critical("a loop has ended unexpectedly", loops=dead)
    return bool(dead)


if __name__ == "__main__":
    sys.exit(main())
