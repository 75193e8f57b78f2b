"""One node's consumer: poll its queue, dispatch to threads, drain."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from chalicelib import queues
from chalicelib.queues import BATCH, Received
from worker import metrics
from worker.command import Commands
from worker.config import WorkerSettings
from worker.engine import Engine
from worker.exits import Exits
from worker.health import Health
from worker.heartbeat import Heartbeat, ServedNode
from worker.lease import Lease
from worker.output import SpoolDirectory
from worker.run import Runner

log = structlog.stdlib.get_logger(__name__)

# After a failed poll, in seconds: AWS is out of reach, or the queue was deleted.
_PAUSE = 5


class Consumer(threading.Thread):
    """Serves one engine until it is told to drain; ends when its last command has ended."""

    def __init__(
        self,
        url: str,
        settings: WorkerSettings,
        lease: Lease,
        heartbeat: Heartbeat,
        health: Health,
        commands: Commands,
        spools: SpoolDirectory,
    ) -> None:
        super().__init__(name=f"consumer {url}", daemon=True)
        self._settings = settings
        self._lease = lease
        self._heartbeat = heartbeat
        self._health = health
        self._pulse = health.pulse(self.name)
        self._commands = commands
        self._spools = spools
        # Each command keeps one connection open for its output and needs another for its calls.
        self._engine = Engine(url, pool=2 * settings.max_commands)
        self.exits = Exits(self._engine, health.pulse(f"events {url}"))
        self._free = threading.Semaphore(settings.max_commands)
        self._draining = threading.Event()
        self._polled = time.time()

    def drain(self) -> None:
        """Takes no new messages from now on."""
        self._draining.set()

    def run(self) -> None:
        node = self._announce()
        if node is not None:
            metrics.LAST_POLL.labels(node.node_id).set_function(lambda: time.time() - self._polled)
            self._serve(node)

    def _serve(self, node: ServedNode) -> None:
        runner = Runner(
            self._engine,
            self.exits,
            node.node_id,
            self._commands,
            self._spools,
            self._settings.redact,
        )
        # No `with`: if this loop dies, it must not wait for its commands first.
        pool = ThreadPoolExecutor(self._settings.max_commands, "run")
        while not self._draining.is_set():
            self._pulse.beat()
            for message in self._poll(node):
                self._submit(pool, runner, node, message)
        self._health.ended(self.name)
        pool.shutdown()

    def _announce(self) -> ServedNode | None:
        """Reaches the engine, makes its queue and announces its node, however long it takes."""
        while not self._draining.is_set():
            self._pulse.beat()
            try:
                node_id, hostname = self._engine.connect()
                node = ServedNode(node_id, hostname, queues.ensure_queue(node_id))
                self._heartbeat.serve(node)
            except Exception as error:  # noqa: BLE001 - engine and AWS may come up after us
                log.warning("node not announced yet", engine=self._engine.url, error=str(error))
                self._draining.wait(_PAUSE)
            else:
                log.info("serving", node_id=node_id, hostname=hostname, engine=self._engine.url)
                return node
        self._health.ended(self.name)
        return None

    def _submit(
        self, pool: ThreadPoolExecutor, runner: Runner, node: ServedNode, message: Received
    ) -> None:
        try:
            pool.submit(self._handle, runner, node, message)
        except RuntimeError:  # no more threads for now: the message comes again
            log.exception("message not taken up")
            metrics.RETRIES.labels("target").inc()
            self._lease.release(node.queue_url, message.target)
            self._free.release()

    def _poll(self, node: ServedNode) -> list[Received]:
        """The next messages, no more than there are free places, each with its place taken."""
        places = self._take_places()
        messages: list[Received] = []
        try:
            if places:
                messages = self._receive(node.queue_url, places)
        except Exception:  # whatever it was, the next poll may work
            log.warning("poll failed", exc_info=True)
            metrics.RETRIES.labels("poll").inc()
            self._draining.wait(_PAUSE)
            with metrics.tolerated("poll"):  # somebody may have deleted the queue
                queues.ensure_queue(node.node_id)
        finally:
            for _ in range(places - len(messages)):
                self._free.release()
        return messages

    def _receive(self, queue_url: str, places: int) -> list[Received]:
        received = queues.receive(queue_url, places, self._settings.poll_seconds)
        self._polled = time.time()
        if received and self._draining.is_set():  # It was told to during the poll: not ours to run.
            queues.hold(queue_url, [message.receipt for message in received], 0)
            return []
        return [message for message in received if self._lease.hold(queue_url, message)]

    def _take_places(self) -> int:
        """Waits some seconds for a free place, takes it and those free beside it, ten at the most."""
        if not self._free.acquire(timeout=self._settings.poll_seconds):
            return 0
        places = 1
        while places < BATCH and self._free.acquire(blocking=False):
            places += 1
        return places

    def _handle(self, runner: Runner, node: ServedNode, message: Received) -> None:
        target = message.target
        in_flight = metrics.IN_FLIGHT.labels(node.node_id)
        with (
            structlog.contextvars.bound_contextvars(
                job_id=target.job_id,
                executor_id=target.executor_id,
                container_id=target.container_id,
            ),
            in_flight.track_inprogress(),
        ):
            try:
                runner.run(message)
                queues.delete(node.queue_url, self._lease.receipt(node.queue_url, target))
            except Exception:
                # The message stays on the queue: it comes again and is adopted, or found to be over.
                log.exception("message not brought to its end")
                metrics.RETRIES.labels("target").inc()
            finally:
                self._lease.release(node.queue_url, target)
                self._free.release()
