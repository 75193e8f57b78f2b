"""Keeps what we work on ours: messages invisible, nodes announced. One thread per process."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from chalicelib import queues, store
from chalicelib.models import Node
from chalicelib.queues import VISIBILITY, Received, TargetMessage
from worker import metrics
from worker.health import Pulse

log = structlog.stdlib.get_logger(__name__)

_INTERVAL = VISIBILITY / 3


@contextmanager
def _the_others_go_on(step: str, **context: str) -> Iterator[None]:
    """Logs an error and lets the turn go on; the next turn comes before messages become visible."""
    try:
        yield
    except Exception:
        log.warning(f"{step} failed", exc_info=True, **context)
        metrics.RETRIES.labels(step).inc()


@dataclass(frozen=True)
class ServedNode:
    """A node that this worker has announced."""

    node_id: str
    hostname: str
    queue_url: str


class Lease(threading.Thread):
    """Extends the visibility of held messages and renews the nodes' heartbeats, every 20 s."""

    def __init__(self, worker_id: str, pulse: Pulse) -> None:
        super().__init__(name="lease", daemon=True)
        self._worker_id = worker_id
        self._pulse = pulse
        self._lock = threading.Lock()
        self._nodes: dict[str, ServedNode] = {}
        self._held: dict[tuple[str, TargetMessage], Received] = {}

    def serve(self, node: ServedNode) -> None:
        """Announces a node now, and again and again from now on."""
        self._announce(node)
        with self._lock:
            self._nodes[node.node_id] = node

    def hold(self, queue_url: str, message: Received) -> bool:
        """Takes a message into our hands; False where we hold its target already.

        A message delivered again has a new receipt, and only the newest one counts. Of two messages
        for one target the older is deleted: one is enough to bring the target to its next worker.
        """
        key = (queue_url, message.target)
        with self._lock:
            before = self._held.get(key)
            self._held[key] = message
        if before and before.id != message.id:
            with _the_others_go_on("delete", queue_url=queue_url):
                queues.delete(queue_url, before.receipt)
        return before is None

    def receipt(self, queue_url: str, target: TargetMessage) -> str:
        """The newest receipt of a held message."""
        with self._lock:
            return self._held[queue_url, target].receipt

    def release(self, queue_url: str, target: TargetMessage) -> None:
        """Holds a message no longer: unless it was deleted, it is visible again within a minute."""
        with self._lock:
            del self._held[queue_url, target]

    def release_all(self) -> None:
        """Makes every held message visible at once, for the next worker to adopt."""
        self._extend(0)

    def run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            self._extend(VISIBILITY)
            for node in self._served():
                self._pulse.beat()
                with _the_others_go_on("heartbeat", node_id=node.node_id):
                    self._announce(node)
                with _the_others_go_on("count of waiting messages", node_id=node.node_id):
                    metrics.WAITING.labels(node.node_id).set(queues.waiting(node.queue_url))

    def _extend(self, seconds: int) -> None:
        for url, receipts in self._receipts().items():
            for batch in queues.batched(receipts):
                self._pulse.beat()
                with _the_others_go_on("hold", queue_url=url):
                    for code in queues.hold(url, batch, seconds):
                        log.warning("message not held", code=code)

    def _receipts(self) -> dict[str, list[str]]:
        by_queue = defaultdict(list)
        with self._lock:
            for (url, _), message in self._held.items():
                by_queue[url].append(message.receipt)
        return by_queue

    def _served(self) -> list[ServedNode]:
        with self._lock:
            return list(self._nodes.values())

    def _announce(self, node: ServedNode) -> None:
        store.announce(
            Node(
                node.node_id,
                Hostname=node.hostname,
                QueueUrl=node.queue_url,
                Worker=self._worker_id,
                Heartbeat=time.time(),
            )
        )
