"""Announces the served nodes, again and again. One thread per process."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.domain.versions import WORKER_VERSION
from chalicelib.store.models import Node
from worker import metrics
from worker.health import Pulse
from worker.patience import tolerated

_TURN_SECONDS = 30
# An idle node is announced this seldom: there may be ten thousand of them, and each write costs.
_IDLE_SECONDS = 120


@dataclass(frozen=True)
class ServedNode:
    """A node that this worker has announced."""

    node_id: str
    hostname: str
    queue_url: str
    # Returns whether commands run on the node or wait for their turn.
    is_busy: Callable[[], bool]


class Heartbeat(threading.Thread):
    """Renews the heartbeats of the nodes; of a busy one it also counts the messages that wait for it.

    It does not share the lease's thread: if DynamoDB hangs, messages must still be held.
    """

    def __init__(self, worker_id: str, pulse: Pulse) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._worker_id = worker_id
        self._pulse = pulse
        self._lock = threading.Lock()
        # When each node was announced last.
        self._nodes: dict[ServedNode, float] = {}

    def serve(self, node: ServedNode) -> None:
        """Announces a node now, and again and again from now on."""
        self._announce(node)

    def run(self) -> None:
        while True:
            time.sleep(_TURN_SECONDS)
            self._pulse.beat()
            for node, announced in self._served():
                self._pulse.beat()
                if node.is_busy():
                    self._renew(node)
                    self._count_waiting(node)
                    continue
                # No message waits: an idle worker would have taken it.
                metrics.WAITING.labels(node.node_id).set(0)
                if time.monotonic() - announced >= _IDLE_SECONDS:
                    self._renew(node)

    def _served(self) -> list[tuple[ServedNode, float]]:
        with self._lock:
            return list(self._nodes.items())

    def _renew(self, node: ServedNode) -> None:
        with tolerated("heartbeat", node_id=node.node_id):
            self._announce(node)

    def _count_waiting(self, node: ServedNode) -> None:
        with tolerated("count of waiting messages", node_id=node.node_id):
            metrics.WAITING.labels(node.node_id).set(queues.count_waiting(node.queue_url))

    def _announce(self, node: ServedNode) -> None:
        store.nodes.announce(
            Node(
                node.node_id,
                Hostname=node.hostname,
                QueueUrl=node.queue_url,
                Worker=self._worker_id,
                Version=WORKER_VERSION,
                Heartbeat=time.time(),
            )
        )
        with self._lock:
            self._nodes[node] = time.monotonic()
