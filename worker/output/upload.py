"""Uploads the output of running commands: one thread decides when, a few others do it, for all logs."""

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog

from chalicelib.clients import logs
from chalicelib.domain.ids import execution_key
from worker.health import Pulse
from worker.output.growth import GrowingLog
from worker.patience import tolerated

# How many uploads of pieces, and of large segments, there are at once.
_PIECES_AT_ONCE, _LARGE_AT_ONCE = 16, 4
# While somebody watches a log, or its command waits for room.
_HURRY_SECONDS = 1.0
# While nobody does, the pauses grow from the first to the longest, for each request that an upload takes.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 3.0, 60.0
_PAUSE_GROWTH = 1.5
# Objects that were replaced stay as long as a link to one may be used. They are deleted this seldom.
_KEPT_SECONDS = logs.LINK_SECONDS
_COLLECT_SECONDS = 3 * logs.LINK_SECONDS
# Between two signs of life.
_TURN_SECONDS = 20.0


class _Job:
    """The uploads of one log. The uploader's lock protects it."""

    def __init__(self, log: GrowingLog, now: float) -> None:
        self.log = log
        self.pieces_run = self.large_runs = False
        self.pieces_due = now + _FIRST_PAUSE_SECONDS
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._watched_until = 0.0
        # The last wish of those who watch, and the last one for which the log was brought up to date.
        self.wish = self.caught_up = 0.0
        # When somebody last wished all of the log at once, and the last such wish that is fulfilled.
        self.wanted = self.fulfilled = 0.0

    def watch(self, since: float, now: float, seconds: float) -> None:
        self._watched_until = now + seconds
        if since > self.wish:
            self.wish, self.pieces_due = since, now

    def has_hurry(self, now: float) -> bool:
        return now < self._watched_until or self.log.spool.is_full

    @property
    def large_is_due(self) -> bool:
        return not self.large_runs and (
            self.wanted > self.fulfilled or self.log.spool.closed_file is not None
        )

    def pause(self, requests: int, now: float) -> None:
        """Puts the next upload of pieces off. It may have been called for in the meantime."""
        if self.has_hurry(now):
            seconds = self._pause_seconds = _HURRY_SECONDS
        else:
            seconds = self._pause_seconds * max(requests, 1)
            longer = max(self._pause_seconds, _FIRST_PAUSE_SECONDS / _PAUSE_GROWTH) * _PAUSE_GROWTH
            self._pause_seconds = min(longer, _LONGEST_PAUSE_SECONDS)
        self.pieces_due = min(self.pieces_due, now + seconds)

    def put_off(self, requests: int) -> None:
        """The requests that a large segment took beside its own two count as those of pieces do."""
        self.pieces_due += requests * self._pause_seconds


class Uploader(threading.Thread):
    """Uploads what comes into the spools of running commands. One thread per process."""

    def __init__(self, pulse: Pulse) -> None:
        super().__init__(name="uploads", daemon=True)
        self._pulse = pulse
        self._changed = threading.Condition()
        self._jobs: dict[GrowingLog, _Job] = {}
        # When to look at which job. A look too many does no harm.
        self._looks: list[tuple[float, int, _Job]] = []
        self._count = itertools.count()
        # The keys of objects that were replaced, and when.
        self._garbage: deque[tuple[float, list[str]]] = deque()
        self._pieces = ThreadPoolExecutor(_PIECES_AT_ONCE, "upload pieces")
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, "upload large")

    @contextmanager
    def following(self, log: GrowingLog) -> Iterator[None]:
        """Uploads what comes into the log's spool, until the end of the block or until `leave`."""
        job = _Job(log, time.monotonic())
        with self._changed:
            self._jobs[log] = job
            self._look_at(job, job.pieces_due)
        log.spool.on_need = lambda: self._hasten(job)
        try:
            yield
        finally:
            self.leave(log)

    def leave(self, log: GrowingLog) -> None:
        """Uploads nothing of the log any more. Returns when no upload of it is under way."""
        with self._changed:
            if job := self._jobs.pop(log, None):
                self._changed.wait_for(lambda: not job.pieces_run and not job.large_runs)

    def watch(self, job_id: str, executor_id: str, since: float, seconds: float) -> None:
        """Keeps the logs of an execution up to date for some seconds: somebody watches them.

        `since` is the same as long as somebody does. For each new one, each log's state says as soon as
        it is up to date.
        """
        now = time.monotonic()
        with self._changed:
            for job in self._find(f"{execution_key(job_id, executor_id)}/"):
                job.watch(since, now, seconds)
                self._look_at(job, now)

    def assemble(self, log: str, wished: float) -> None:
        """Makes one object of all that the log has so far: somebody wished that at this time."""
        with self._changed:
            for job in self._find(log):
                if job.log.name == log and wished > job.wanted:
                    job.wanted = wished
                    self._look_at(job, time.monotonic())

    def executions(self) -> set[tuple[str, str]]:
        """JobId and ExecutorId of those whose logs it follows."""
        with self._changed:
            names = [log.name.split("/") for log in self._jobs]
        return {(job_id, executor_id) for job_id, executor_id, _ in names}

    def discard(self, log: GrowingLog) -> None:
        """Deletes in a while what the log does not need any more."""
        if keys := log.take_garbage():
            with self._changed:
                self._garbage.append((time.monotonic(), keys))

    def _find(self, prefix: str) -> list[_Job]:
        return [job for log, job in self._jobs.items() if log.name.startswith(prefix)]

    def _hasten(self, job: _Job) -> None:
        """A file of the spool is closed, or the command waits for room."""
        now = time.monotonic()
        with self._changed:
            if job.log.spool.is_full:
                job.pieces_due = now
            self._look_at(job, now)

    def _look_at(self, job: _Job, when: float) -> None:
        heapq.heappush(self._looks, (when, next(self._count), job))
        self._changed.notify_all()

    def run(self) -> None:
        while True:
            self._pulse.beat()
            self.turn()
            with self._changed:
                # A new look ends the wait: it may come before the others.
                if seconds := self._seconds_to_next():
                    self._changed.wait(seconds)

    def _seconds_to_next(self) -> float:
        if not self._looks:
            return _TURN_SECONDS
        return min(max(self._looks[0][0] - time.monotonic(), 0), _TURN_SECONDS)

    def turn(self) -> None:
        """Starts the uploads that are due."""
        for job in self._take_due():
            self._start(job)
        if keys := self._take_garbage():
            self._pieces.submit(self._delete_objects, keys)

    def _take_due(self) -> list[_Job]:
        due = []
        with self._changed:
            while self._looks and self._looks[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._looks)[2])
        return due

    def _start(self, job: _Job) -> None:
        with self._changed:
            if job.log not in self._jobs:
                return
            pieces = not job.pieces_run and job.pieces_due <= time.monotonic()
            large = job.large_is_due
            if pieces:
                job.pieces_run, job.pieces_due = True, math.inf
            if large:
                job.large_runs = True
        if pieces:
            self._pieces.submit(self._upload_pieces, job)
        if large:
            self._large.submit(self._upload_large, job)

    def _upload_pieces(self, job: _Job) -> None:
        requests = 0
        wish, hurry = job.wish, job.has_hurry(time.monotonic())
        with _bound(job.log), tolerated("log"):
            requests = job.log.upload_pieces(hurry)
            if wish > job.caught_up:
                job.log.note_caught_up(wish)
                job.caught_up = wish
        with self._changed:
            job.pieces_run = False
            job.pause(requests, time.monotonic())
            self._look_at(job, job.pieces_due)

    def _upload_large(self, job: _Job) -> None:
        requests, wanted = 0, job.wanted
        pause = _FIRST_PAUSE_SECONDS
        with _bound(job.log), tolerated("log"):
            requests = job.log.upload_large()
            if wanted > job.fulfilled:
                job.log.assemble_so_far()
                job.fulfilled = wanted
            pause = 0
        self.discard(job.log)
        with self._changed:
            job.large_runs = False
            job.put_off(requests)
            self._look_at(job, time.monotonic() + pause)
            if not job.pieces_run:
                self._look_at(job, job.pieces_due)

    def _take_garbage(self) -> list[str]:
        """The keys that are old enough, if there are any that wait long."""
        now = time.monotonic()
        keys: list[str] = []
        with self._changed:
            if self._garbage and self._garbage[0][0] <= now - _COLLECT_SECONDS:
                while self._garbage and self._garbage[0][0] <= now - _KEPT_SECONDS:
                    keys += self._garbage.popleft()[1]
        return keys

    def _delete_objects(self, keys: list[str]) -> None:
        # What is not deleted expires: the bucket has a rule for that.
        with tolerated("delete of segments"):
            logs.delete(keys)


@contextmanager
def _bound(log: GrowingLog) -> Iterator[None]:
    """For what the block logs."""
    job_id, executor_id, container_id = log.name.split("/", 2)
    with structlog.contextvars.bound_contextvars(
        job_id=job_id, executor_id=executor_id, container_id=container_id
    ):
        yield
