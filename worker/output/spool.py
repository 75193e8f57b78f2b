"""A command's output: read at full speed into a spool on disk, uploaded from there into the log in S3."""

import fcntl
import os
import shutil
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from chalicelib.clients.logs import MIN_PART_BYTES, GrowingObject

# The engine drops output that is not read two seconds after a command ended. We have seen up to 1.4 MB
# wait then, in the buffers of the engine and the socket. If more than that comes after a pause, the
# command still ran.
_LONG_WRITE_SECONDS = 1.5
_BUFFERED_BYTES = 2 * 1024**2
# How many segments, of up to MIN_PART_BYTES each, may be in memory at once for their upload.
_UPLOADS = 32
# If an output is too long for its log, this much of its end is kept too.
LAST_BYTES = 1024**2


class UnsafeFolder(Exception):
    """A user other than the worker's could put files into the folder for spools."""


class SpoolDirectory:
    """The worker's place for spools: a directory that only this process has, and limits.

    `log_bytes`: how many bytes of output a command's log takes; the last LAST_BYTES come on top.

    `limit`: how many bytes may wait for their upload, in all spools together. One command may have as
    many of them as it leaves free, so that a command that prints fast leaves room for others. On the
    disk, each command also has up to MIN_PART_BYTES that are uploaded already.
    """

    def __init__(self, parent: Path, limit: int, log_bytes: int) -> None:
        _make_safe(parent)
        self._path = parent / uuid4().hex
        # Only one process at a time does this: a directory whose lock nobody holds yet looks left over.
        with _locked(parent / "lock"):
            _remove_leftovers(parent)
            # Output is for nobody else on this machine.
            self._path.mkdir(mode=0o700)
            # We hold this lock until our process ends, however it ends. By the lock, the next process
            # knows what is left over.
            self._lock = _locked(self._path / "lock")
        self._limit = limit
        self._log_bytes = log_bytes
        self._waiting = 0
        self._changed = threading.Condition()
        self.uploading = threading.BoundedSemaphore(_UPLOADS)

    def open(self, name: str, log: GrowingObject, tail: int, log_bytes: int | None) -> "Spool":
        """Opens a spool for the output of one command. The spool remembers the last `tail` bytes.

        The job's own `log_bytes` may lower the worker's, and cannot raise it.
        """
        limit = min(self._log_bytes, log_bytes or self._log_bytes)
        return Spool(self, self._path / name, log, tail, limit)

    def add(self, count: int) -> None:
        """Adds `count` to the number of bytes that wait; it may be negative."""
        with self._changed:
            self._waiting += count
            if count < 0:
                self._changed.notify_all()

    def wait_for_room(self, spool: "Spool") -> None:
        """Waits until the spool may take more."""
        if self._has_room(spool):
            return
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(spool))

    def _has_room(self, spool: "Spool") -> bool:
        return spool.waiting < self._limit - self._waiting

    def close(self) -> None:
        """Removes the directory and all that is in it."""
        shutil.rmtree(self._path)
        self._lock.close()


def _make_safe(folder: Path) -> None:
    """Makes the folder if it is not there. Raises UnsafeFolder if others could put things into it.

    A user who can make a link in it could make this process, which may be root, write to any file.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{folder} is not a folder; links are not followed")
    if found.st_uid != os.geteuid():
        raise UnsafeFolder(
            f"{folder} belongs to user {found.st_uid}; it must belong to the worker's, {os.geteuid()}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFolder(f"others may write to {folder}; allow only its owner: chmod go-w")


def _locked(path: Path) -> FileIO:
    """Opens the file and waits for its lock. The lock is held until the file is closed."""
    file = FileIO(path, "a", opener=_private)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _private(path: str, flags: int) -> int:
    """Opens a file that only we may read, never through a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _remove_leftovers(parent: Path) -> None:
    """Removes what dead processes left behind: nobody else knows what is in it."""
    for lock_file in parent.glob("*/lock"):
        # Its owner may remove it at this moment.
        with suppress(BlockingIOError, FileNotFoundError), lock_file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_file.parent, ignore_errors=True)


class Spool:
    """Takes output from one thread (`write`) and brings it into the log from another (`flush`).

    Reading must keep up with the engine, which drops what is left two seconds after a command ended. So
    `write` waits only while too much is not uploaded yet. Then the command waits too.

    On disk, a spool is a row of segment files. A segment that is long enough for S3 to copy it
    (MIN_PART_BYTES) is closed, uploaded and deleted. The last segment is uploaded again whenever it has
    grown.

    After `limit` bytes the rest is not kept, except for the last LAST_BYTES, which `complete` adds. So
    neither the disk nor the log grows any more, and nobody has to wait: the command runs at full speed.
    """

    def __init__(
        self, directory: SpoolDirectory, path: Path, log: GrowingObject, tail: int, limit: int
    ) -> None:
        # How many bytes the output has so far.
        self.size = 0
        # How many of them went into files.
        self._kept = 0
        # Bytes that are not uploaded yet.
        self.waiting = 0
        self._directory = directory
        self._path = path
        self._log = log
        self._tail = bytearray()
        self._tail_size = tail
        self._limit = limit
        # How much output had come before the last long write.
        self._paused_at: int | None = None
        self._lock = threading.Lock()
        self._closed: deque[Path] = deque()
        self._segments = 0
        self._open_segment()

    def _open_segment(self) -> None:
        self._segments += 1
        self._current = self._path.with_suffix(f".{self._segments}")
        self._file = FileIO(self._current, "w", opener=_private)
        self._length = 0
        self._uploaded = 0

    def write(self, chunk: bytes) -> None:
        """Adds output, if any, at the end; waits while the spool is full."""
        if not chunk:
            return
        began, before = time.monotonic(), self.size
        if self._kept < self._limit:
            self._directory.wait_for_room(self)
        with self._lock:
            self._write(memoryview(chunk))
        # The disk may have been slow, too.
        if time.monotonic() - began > _LONG_WRITE_SECONDS:
            self._paused_at = before

    def _write(self, left: memoryview) -> None:
        while left:
            room = self._limit - self._kept
            count = self._keep(left[:room]) if room else len(left)
            self.size += count
            self._tail += left[:count]
            left = left[count:]
        needed = self._tail_size if self.size <= self._limit else max(self._tail_size, LAST_BYTES)
        # Not each time: a cut moves all that stays. But now and then: there may be a thousand tails.
        if len(self._tail) > 2 * needed:
            del self._tail[:-needed]

    def _keep(self, piece: memoryview) -> int:
        """Adds the piece, or its beginning, to the current file. Returns how many bytes it added."""
        # A disk that is nearly full takes a part, and fails only the next time.
        count = self._file.write(piece)
        self._length += count
        self._kept += count
        self._count_waiting(count)
        return count

    def complete(self) -> None:
        """Adds the end of an output that was too long. Called once, when the output is over."""
        with self._lock:
            missing = min(self.size - self._kept, LAST_BYTES)
            left = memoryview(self._tail[len(self._tail) - missing :])
            while left:
                left = left[self._keep(left) :]

    @property
    def dropped(self) -> dict[str, int] | None:
        """What a completed log lacks: how many bytes, and after how many others; None if nothing."""
        missing = self.size - self._kept
        return {"Bytes": missing, "After": self._limit} if missing else None

    def _count_waiting(self, count: int) -> None:
        """Adds `count` to the number of bytes that wait for their upload; it may be negative."""
        self.waiting += count
        self._directory.add(count)

    @property
    def end_in_doubt(self) -> bool:
        """Whether the engine may have dropped some output, because reading paused long near the end."""
        return self._paused_at is not None and self.size - self._paused_at < _BUFFERED_BYTES

    @property
    def tail(self) -> bytes:
        """The end of the output."""
        with self._lock:
            return bytes(self._tail[-self._tail_size :])

    @property
    def is_short(self) -> bool:
        """Whether the tail is all of the output."""
        return self.size <= self._tail_size

    @property
    def stored(self) -> int:
        """How many bytes of the output are in the log."""
        return self._kept - self.waiting

    def flush(self) -> None:
        """Brings the log in S3 up to date. Safe to repeat after a failure."""
        while self.flush_some():
            pass

    def flush_some(self) -> bool:
        """Uploads one closed segment; if there is none, the open one. True if more may wait."""
        self._close_full_segment()
        if not self._closed:
            self._upload_current()
            return False
        self._upload_closed(self._closed[0])
        return True

    def _close_full_segment(self) -> None:
        with self._lock:
            if self._length >= MIN_PART_BYTES:
                self._file.close()
                self._closed.append(self._current)
                # The part of it that was uploaded is uploaded once more, with the rest.
                self._count_waiting(self._uploaded)
                self._open_segment()

    def _upload_closed(self, segment: Path) -> None:
        size = segment.stat().st_size
        with segment.open("rb") as body:
            self._log.write(body)
        self._log.settle(size)
        self._closed.popleft()
        segment.unlink()
        with self._lock:
            self._count_waiting(-size)

    def _upload_current(self) -> None:
        with self._lock:
            length = self._length
        if length == self._uploaded:
            return
        with self._directory.uploading, self._current.open("rb") as file:
            self._log.write(file.read(length))
        with self._lock:
            self._count_waiting(self._uploaded - length)
            self._uploaded = length

    def close(self) -> None:
        """Gives the disk space back; output that was not flushed is gone."""
        self._file.close()
        for segment in (self._current, *self._closed):
            segment.unlink(missing_ok=True)
        self._count_waiting(-self.waiting)
