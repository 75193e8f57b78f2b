"""Settles targets that are over: counts them, says which parts are complete, deletes the messages.

One thread per process, so that ends that come together share their requests. A message is deleted only
after its target is counted. If the worker dies in between, the message comes again: then its worker finds
the stored end and counts it again, which changes nothing.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.clients.queues import TargetMessage
from worker.health import Pulse
from worker.lease import Lease
from worker.patience import tolerated
from worker.target.outcome import StoredEnd

log = structlog.stdlib.get_logger(__name__)

# After an end, more of them are waited for.
_GATHER_SECONDS = 0.5
# The pause after a turn in which AWS failed.
_FAILED_SECONDS = 5
# Between two beats while nothing ends.
_LOOK_SECONDS = 1.0


class _Over(NamedTuple):
    """A message in hand whose target is over; or a message of no target, which has no end."""

    queue_url: str
    target: TargetMessage
    end: StoredEnd | None


class Settler(threading.Thread):
    """Takes over messages whose targets are over. What fails is tried again, and is held until then."""

    def __init__(self, lease: Lease, pulse: Pulse) -> None:
        super().__init__(name="settler", daemon=True)
        self._lease = lease
        self._pulse = pulse
        self._changed = threading.Condition()
        self._unsettled: set[_Over] = set()
        self._draining = threading.Event()

    def settle(self, queue_url: str, target: TargetMessage, end: StoredEnd | None) -> None:
        """Takes over a message that the lease holds; the lease stops holding it when it is deleted."""
        with self._changed:
            self._unsettled.add(_Over(queue_url, target, end))
            self._changed.notify_all()

    def drain(self) -> None:
        """Waits for no further ends from now on."""
        self._draining.set()

    @property
    def is_idle(self) -> bool:
        """Whether all that was taken over is settled."""
        with self._changed:
            return not self._unsettled

    def run(self) -> None:
        while True:
            self._pulse.beat()
            if (over := self._gather()) and not self._settle(over):
                time.sleep(_FAILED_SECONDS)

    def _gather(self) -> list[_Over]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._unsettled, _LOOK_SECONDS):
                return []
        self._draining.wait(_GATHER_SECONDS)
        with self._changed:
            return list(self._unsettled)

    def _settle(self, over: list[_Over]) -> bool:
        """Takes one turn. Returns False if something failed, and has to be tried again."""
        counted = self._count(over)
        settled = self._delete_messages(counted)
        return len(settled) == len(over)

    def _count(self, over: Iterable[_Over]) -> list[_Over]:
        """Counts the ends, part by part. Returns those messages that may be deleted."""
        counted = [one for one in over if one.end is None]
        for part, ends in _by_part(over).items():
            self._pulse.beat()
            with tolerated("count"):
                _count_part(*part, [one.end for one in ends if one.end])
                counted += ends
        return counted

    def _delete_messages(self, over: Iterable[_Over]) -> list[_Over]:
        """Deletes the messages, and forgets them. Returns those that we need not hold any more."""
        deleted = []
        by_queue = defaultdict(list)
        for one in over:
            by_queue[one.queue_url].append(one)
        for url, messages in by_queue.items():
            for batch in queues.split_into_batches(messages):
                self._pulse.beat()
                with tolerated("delete", queue_url=url):
                    self._delete_batch(url, batch)
                    deleted += batch
        return deleted

    def _delete_batch(self, url: str, batch: list[_Over]) -> None:
        receipts = [self._lease.newest_receipt(url, one.target) for one in batch]
        for code in queues.delete_batch(url, receipts):
            # It comes again, and is settled again.
            log.warning("message not deleted", queue_url=url, code=code)
        # In this order: a message that the lease does not hold may come again, and is taken over again.
        with self._changed:
            self._unsettled.difference_update(batch)
        for one in batch:
            self._lease.release(url, one.target)


def _by_part(over: Iterable[_Over]) -> dict[tuple[str, str, int], list[_Over]]:
    parts = defaultdict(list)
    for one in over:
        if one.end:
            parts[one.target.job_id, one.target.executor_id, one.end.part].append(one)
    return parts


def _count_part(job_id: str, executor_id: str, part: int, stored: list[StoredEnd]) -> None:
    """Counts ends of one part. If all its targets are over now, says so."""
    ends = [one.end for one in stored]
    counted = store.counts.add_ends(job_id, executor_id, part, ends, stored[0].expires_at)
    if len(counted) == stored[0].part_size:
        queues.report_ended(job_id, executor_id)
