"""Announces the served nodes, again and again. One thread per process."""

import threading
import time
from dataclasses import dataclass

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.store.models import Node
from worker import metrics
from worker.health import Pulse
from worker.patience import tolerated

_INTERVAL_SECONDS = 20


@dataclass(frozen=True)
class ServedNode:
    """A node that this worker has announced."""

    node_id: str
    hostname: str
    queue_url: str


class Heartbeat(threading.Thread):
    """Every 20 s, renews the heartbeat of each node and counts the messages that wait for it.

    It does not share the lease's thread: if DynamoDB hangs, messages must still be held.
    """

    def __init__(self, worker_id: str, pulse: Pulse) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._worker_id = worker_id
        self._pulse = pulse
        self._lock = threading.Lock()
        self._nodes: dict[str, ServedNode] = {}

    def serve(self, node: ServedNode) -> None:
        """Announces a node now, and again and again from now on."""
        self._announce(node)
        with self._lock:
            self._nodes[node.node_id] = node

    def run(self) -> None:
        while True:
            time.sleep(_INTERVAL_SECONDS)
            self._pulse.beat()
            for node in self._served():
                self._pulse.beat()
                with tolerated("heartbeat", node_id=node.node_id):
                    self._announce(node)
                with tolerated("count of waiting messages", node_id=node.node_id):
                    metrics.WAITING.labels(node.node_id).set(queues.count_waiting(node.queue_url))

    def _served(self) -> list[ServedNode]:
        with self._lock:
            return list(self._nodes.values())

    def _announce(self, node: ServedNode) -> None:
        store.nodes.announce(
            Node(
                node.node_id,
                Hostname=node.hostname,
                QueueUrl=node.queue_url,
                Worker=self._worker_id,
                Heartbeat=time.time(),
            )
        )
