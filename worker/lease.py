"""Keeps the messages in hand invisible to other workers. One thread per process."""

import threading
import time
from collections import defaultdict

import structlog

from chalicelib.clients import queues
from chalicelib.clients.queues import VISIBILITY_SECONDS, Received, TargetMessage
from worker.health import Pulse
from worker.patience import tolerated

log = structlog.stdlib.get_logger(__name__)

_INTERVAL_SECONDS = VISIBILITY_SECONDS / 3


class Lease(threading.Thread):
    """Every 20 s, extends the time for which held messages are invisible."""

    def __init__(self, pulse: Pulse) -> None:
        super().__init__(name="lease", daemon=True)
        self._pulse = pulse
        self._lock = threading.Lock()
        # By queue and target.
        self._held: dict[tuple[str, tuple[str, str, str]], Received] = {}
        self._all_released = False

    def hold(self, queue_url: str, message: Received) -> bool:
        """Takes a message in hand. Returns False if we hold a message of its target already.

        A message that is delivered again has a new receipt, and only the newest receipt counts. If a
        target has two messages, the older one is deleted: one is enough for the next worker to get it.
        """
        key = (queue_url, message.target.ids)
        with self._lock:
            before = self._held.get(key)
            self._held[key] = message
        if before and before.id != message.id:
            with tolerated("delete", queue_url=queue_url):
                queues.delete(queue_url, before.receipt)
        return before is None

    def newest_receipt(self, queue_url: str, target: TargetMessage) -> str:
        """The newest receipt of a held message."""
        with self._lock:
            return self._held[queue_url, target.ids].receipt

    def release(self, queue_url: str, target: TargetMessage) -> None:
        """Stops holding a message. If nobody deleted it, it is visible again within a minute."""
        with self._lock:
            del self._held[queue_url, target.ids]

    def release_all(self) -> None:
        """Makes every held message visible now, so that the next worker adopts its target.

        From then on, no message is extended any more.
        """
        self._all_released = True
        self._extend(0)

    def run(self) -> None:
        while True:
            time.sleep(_INTERVAL_SECONDS)
            if self._all_released:
                return
            self._pulse.beat()
            self._extend(VISIBILITY_SECONDS)

    def _extend(self, seconds: int) -> None:
        for url, receipts in self._receipts().items():
            for batch in queues.split_into_batches(receipts):
                self._pulse.beat()
                # If this fails, the next turn still comes before the messages become visible.
                with tolerated("hold", queue_url=url):
                    for code in queues.hold(url, batch, seconds):
                        log.warning("message not held", code=code)

    def _receipts(self) -> dict[str, list[str]]:
        by_queue = defaultdict(list)
        with self._lock:
            for (url, _), message in self._held.items():
                by_queue[url].append(message.receipt)
        return by_queue
