"""Keeps what we work on ours: messages invisible, nodes announced. One thread per process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from chalicelib import queues, store
from chalicelib.models import Node
from chalicelib.queues import VISIBILITY, Received, TargetMessage

log = structlog.stdlib.get_logger(__name__)

_INTERVAL = VISIBILITY / 3


@contextmanager
def _the_others_go_on(event: str, **context: str) -> Iterator[None]:
    """Logs an error and lets the turn go on; the next turn comes before messages become visible."""
    try:
        yield
    except Exception:
        log.warning(event, exc_info=True, **context)


@dataclass(frozen=True)
class ServedNode:
    """A node that this worker has announced."""

    node_id: str
    hostname: str
    queue_url: str


class Lease(threading.Thread):
    """Extends the visibility of held messages and renews the nodes' heartbeats, every 20 s."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(name="lease", daemon=True)
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._nodes: dict[str, ServedNode] = {}
        self._held: dict[tuple[str, TargetMessage], str] = {}

    def serve(self, node: ServedNode) -> None:
        """Announces a node now, and again and again from now on."""
        self._announce(node)
        with self._lock:
            self._nodes[node.node_id] = node

    def hold(self, queue_url: str, message: Received) -> bool:
        """Takes a message into our hands; False where we hold its target already.

        A message delivered again has a new receipt, and only the newest one counts.
        """
        key = (queue_url, message.target)
        with self._lock:
            is_new = key not in self._held
            self._held[key] = message.receipt
        return is_new

    def receipt(self, queue_url: str, target: TargetMessage) -> str:
        """The newest receipt of a held message."""
        with self._lock:
            return self._held[queue_url, target]

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
                with _the_others_go_on("heartbeat not told", node_id=node.node_id):
                    self._announce(node)

    def _extend(self, seconds: int) -> None:
        by_queue: dict[str, list[str]] = {}
        with self._lock:
            for (url, _), receipt in self._held.items():
                by_queue.setdefault(url, []).append(receipt)
        for url, receipts in by_queue.items():
            with _the_others_go_on("messages not held", queue_url=url):
                for code in queues.hold(url, receipts, seconds):
                    log.warning("message not held", code=code)

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
