"""A command's output: taken at full speed into a spool on disk, from there into the log in S3."""

import threading
import time
from collections import deque
from pathlib import Path

from chalicelib.logs import MIN_PART, GrowingObject

# The engine drops what is not read two seconds after a command ended. Up to 1.4 MB were seen to wait in
# its and the socket's buffers then; more than that afterwards, and the command was still there.
_PATIENCE = 1.5
_BUFFERED = 2 * 1024**2
# The tail is cut when it is this much too long: seldom, since a cut moves all of it.
_TAIL_SLACK = 1024**2


class Spool:
    """Takes output from one thread (`write`) and brings it into the log from another (`flush`).

    Reading must keep up with the engine, which drops what is left two seconds after a command ended. So
    `write` waits only while `limit` bytes are not uploaded yet; the command then waits with it.

    On disk it is a row of segment files. One that S3 can copy by itself (MIN_PART) is closed, uploaded
    and deleted; the last one is uploaded again whenever it has grown.
    """

    def __init__(self, path: Path, log: GrowingObject, tail: int, limit: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.size = 0
        self._path = path
        self._log = log
        self._tail = bytearray()
        self._tail_size = tail
        self._limit = limit
        self._held_at: int | None = None
        self._changed = threading.Condition()
        self._waiting = 0
        self._closed: deque[Path] = deque()
        self._segments = 0
        self._open_segment()

    def _open_segment(self) -> None:
        self._segments += 1
        self._current = self._path.with_suffix(f".{self._segments}")
        self._file = self._current.open("wb", buffering=0)
        self._length = 0
        self._uploaded = 0

    def write(self, chunk: bytes) -> None:
        """Adds output at the end; waits while the spool is full."""
        with self._changed:
            if self._waiting >= self._limit:
                self._wait_for_room()
            self._file.write(chunk)
            self._length += len(chunk)
            self._waiting += len(chunk)
            self.size += len(chunk)
            self._tail += chunk
            if len(self._tail) > self._tail_size + _TAIL_SLACK:
                del self._tail[: -self._tail_size]

    def _wait_for_room(self) -> None:
        began = time.monotonic()
        self._changed.wait_for(lambda: self._waiting < self._limit)
        if time.monotonic() - began > _PATIENCE:
            self._held_at = self.size

    @property
    def end_in_doubt(self) -> bool:
        """Whether reading stood still so long, so near the end, that the engine may have dropped some."""
        return self._held_at is not None and self.size - self._held_at < _BUFFERED

    @property
    def tail(self) -> bytes:
        """The end of the output."""
        with self._changed:
            return bytes(self._tail[-self._tail_size :])

    def flush(self) -> None:
        """Brings the log in S3 up to date, if something came since; safe to repeat after a failure."""
        self._close_segment()
        while self._closed:
            self._upload_closed(self._closed[0])
        self._upload_current()

    def _close_segment(self) -> None:
        with self._changed:
            if self._length >= MIN_PART:
                self._file.close()
                self._closed.append(self._current)
                # What was uploaded of it is uploaded once more, with the rest.
                self._waiting += self._uploaded
                self._open_segment()

    def _upload_closed(self, segment: Path) -> None:
        size = segment.stat().st_size
        with segment.open("rb") as body:
            self._log.write(body)
        self._log.settle(size)
        self._closed.popleft()
        segment.unlink()
        self._uploaded_bytes(size)

    def _upload_current(self) -> None:
        with self._changed:
            length = self._length
        if length == self._uploaded:
            return
        with self._current.open("rb") as file:
            self._log.write(file.read(length))
        self._uploaded_bytes(length - self._uploaded)
        self._uploaded = length

    def _uploaded_bytes(self, count: int) -> None:
        with self._changed:
            self._waiting -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Gives the disk space back; what was not flushed is gone."""
        self._file.close()
        for segment in (self._current, *self._closed):
            segment.unlink(missing_ok=True)
