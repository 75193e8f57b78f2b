"""A command's output on disk: read at full speed into files, and uploaded from there into its log."""

import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from chalicelib.domain.segments import MIN_PART_BYTES, segment_bytes
from worker.output.files import Section, SpoolFile, file_path
from worker.output.folder import locked, make_safe, open_private
from worker.patience import tolerated

# The engine drops output that is not read two seconds after a command ended. We have seen up to 1.4 MB
# wait then, in the buffers of the engine and the socket. If more than that comes after a pause, the
# command still ran.
_LONG_WRITE_SECONDS = 1.5
_BUFFERED_BYTES = 2 * 1024**2
# If an output is too long for its log, this much of its end is kept too.
LAST_BYTES = 1024**2
# The file beside a spool's files that says which log they are of.
LABEL = ".log"


class SpoolDirectory:
    """The worker's place for spools: a directory that only this process has, and limits.

    `log_bytes`: how many bytes of output a command's log takes; the last LAST_BYTES come on top.

    `limit`: how many bytes may wait for their upload, in all spools together. One command may have as
    many of them as it leaves free, so that a command that prints fast leaves room for others. On the
    disk, each command also has up to MIN_PART_BYTES that are uploaded already.
    """

    def __init__(self, parent: Path, limit: int, log_bytes: int) -> None:
        make_safe(parent)
        self.parent = parent
        self._path = parent / uuid4().hex
        # Only one process at a time does this: a directory whose lock nobody holds yet looks left over.
        with locked(parent / "lock"):
            # Output is for nobody else on this machine.
            self._path.mkdir(mode=0o700)
            # We hold this lock until our process ends, however it ends. By the lock, the next process
            # knows what is left over.
            self._lock = locked(self._path / "lock")
        self._limit = limit
        self._log_bytes = log_bytes
        self._held = 0
        self._changed = threading.Condition()

    def open(self, name: str, log: str, expires: int, tail: int, log_bytes: int | None) -> "Spool":
        """Opens a spool for the output of one command. The spool remembers the last `tail` bytes.

        The job's own `log_bytes` may lower the worker's, and cannot raise it.
        """
        limit = min(self._log_bytes, log_bytes or self._log_bytes)
        base = self._path / name
        # On a full disk, the command runs all the same. Nobody salvages a spool without a label.
        with tolerated("label of a spool"), open_private(base.with_suffix(LABEL), "w") as label:
            label.write(json.dumps({"Log": log, "ExpiresAt": expires}).encode())
        return Spool(self, base, tail, limit)

    def add(self, count: int) -> None:
        """Adds `count` to the number of bytes that the spools hold; it may be negative."""
        with self._changed:
            self._held += count
            if count < 0:
                self._changed.notify_all()

    def wait_for_room(self, spool: "Spool") -> None:
        """Waits until the spool may take more."""
        with self._changed:
            self._changed.wait_for(lambda: self.room(spool) > 0)

    def room(self, spool: "Spool") -> int:
        """How many bytes the spool may take now."""
        return self._limit - self._held - spool.held

    def close(self) -> None:
        """Removes the directory and all that is in it."""
        shutil.rmtree(self._path)
        self._lock.close()


class Spool:
    """Takes output from one thread (`write`), and gives it to those that upload it.

    Reading must keep up with the engine, which drops what is left two seconds after a command ended. So
    `write` waits only while too much is not uploaded yet. Then the command waits too.

    On disk, a spool is a row of files. Each becomes one segment of the log: if the last file is large
    enough for that, it is closed, and the next one begins. It is closed earlier if there is little room.

    After `limit` bytes the rest is not kept, except for the last LAST_BYTES, which `complete` adds. So
    neither the disk nor the log grows any more, and nobody has to wait: the command runs at full speed.
    """

    def __init__(self, directory: SpoolDirectory, base: Path, tail: int, limit: int) -> None:
        # How many bytes the output has so far, and how many of them went into files.
        self.size = 0
        self.kept = 0
        # All bytes before this place are uploaded.
        self.uploaded = 0
        # How many bytes count for the directory's limit.
        self.held = 0
        # Whether a write waits for room.
        self.is_full = False
        # Called if a file is to be uploaded now, or if a write waits for room.
        self.on_need: Callable[[], None] = lambda: None
        self._directory = directory
        self._base = base
        self._tail = bytearray()
        self._tail_size = tail
        self._limit = limit
        # How much output had come before the last long write.
        self._paused_at: int | None = None
        self._lock = threading.Lock()
        self._closed: deque[SpoolFile] = deque()
        self._open_file()

    def _open_file(self) -> None:
        self._first, self._length = self.kept, 0
        self._path = file_path(self._base, self._first)
        self._file = open_private(self._path, "w")

    def write(self, chunk: bytes) -> None:
        """Adds output, if any, at the end; waits while the spool is full."""
        if not chunk:
            return
        began, before = time.monotonic(), self.size
        if self.kept < self._limit and self._directory.room(self) <= 0:
            self._wait_for_room()
        with self._lock:
            self._write(memoryview(chunk))
            is_due = self._is_file_due() and self._close_file()
        if is_due:
            self.on_need()
        # The disk may have been slow, too.
        if time.monotonic() - began > _LONG_WRITE_SECONDS:
            self._paused_at = before

    def _wait_for_room(self) -> None:
        self.close_file()
        self.is_full = True
        self.on_need()
        self._directory.wait_for_room(self)
        self.is_full = False

    def _write(self, left: memoryview) -> None:
        while left:
            room = self._limit - self.kept
            count = self._keep(left[:room]) if room else len(left)
            self.size += count
            self._tail += left[:count]
            left = left[count:]
        needed = self._tail_size if self.size <= self._limit else max(self._tail_size, LAST_BYTES)
        # Not each time: a cut moves all that stays. But now and then: there may be a thousand tails.
        if len(self._tail) > 2 * needed:
            del self._tail[:-needed]

    def _keep(self, piece: memoryview) -> int:
        """Adds the piece, or its beginning, to the open file. Returns how many bytes it added."""
        # A disk that is nearly full takes a part, and fails only the next time.
        count = self._file.write(piece)
        self._length += count
        self.kept += count
        self._count_held()
        return count

    def _count_held(self) -> None:
        """Brings `held` up to date: what is on the disk, without the little that may be there twice."""
        uploaded = min(max(self.uploaded - self._first, 0), MIN_PART_BYTES)
        held = sum(file.size for file in self._closed) + self._length - uploaded
        self.held, before = held, self.held
        self._directory.add(held - before)

    def _is_file_due(self) -> bool:
        """Whether the open file is large enough for a segment of its own."""
        return self._length >= min(segment_bytes(self.kept), self._directory.room(self))

    def close_file(self) -> None:
        """Makes the open file a segment of its own, if S3 can copy it."""
        with self._lock:
            self._close_file()

    def _close_file(self) -> bool:
        if self._length < MIN_PART_BYTES:
            return False
        self._file.close()
        self._closed.append(self._open())
        self._open_file()
        self._count_held()
        return True

    def _open(self) -> SpoolFile:
        """The open file as it is now."""
        return SpoolFile(self._path, self._first, self._length)

    def complete(self) -> None:
        """Adds the end of an output that was too long. Called once, when the output is over."""
        with self._lock:
            missing = min(self.size - self.kept, LAST_BYTES)
            left = memoryview(self._tail[len(self._tail) - missing :])
            while left:
                left = left[self._keep(left) :]

    @property
    def dropped(self) -> dict[str, int] | None:
        """What a completed log lacks: how many bytes, and after how many others; None if nothing."""
        missing = self.size - self.kept
        return {"Bytes": missing, "After": self._limit} if missing else None

    @property
    def waiting(self) -> int:
        """How many bytes are not uploaded yet."""
        return self.kept - self.uploaded

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
    def closed_file(self) -> SpoolFile | None:
        """The oldest closed file."""
        with self._lock:
            return self._closed[0] if self._closed else None

    def open_new(self, also_closed: bool) -> tuple[int, int, Section] | None:
        """What is in one file and not uploaded yet; None if nothing.

        Also returns where in the log the file begins, and where what is new. Without `also_closed`, it
        returns nothing that comes after a closed file: that is uploaded as a whole first.
        """
        with self._lock:
            if self._closed and not also_closed:
                return None
            for file in (*self._closed, self._open()):
                if file.end > self.uploaded:
                    return file.first, self.uploaded, file.open(self.uploaded)
            return None

    def open_rest(self) -> tuple[int, Section | None]:
        """Where in the log the open file begins, and all that is in it; None if it is empty."""
        with self._lock:
            return self._first, self._open().open(self._first) if self._length else None

    def note_uploaded(self, end: int) -> None:
        """Notes that all bytes before this place are uploaded."""
        with self._lock:
            self.uploaded = max(self.uploaded, end)
            self._count_held()

    def remove(self, file: SpoolFile) -> None:
        """Removes the oldest closed file, which is uploaded as a whole."""
        with self._lock:
            self._closed.popleft()
            file.path.unlink()
            self.uploaded = max(self.uploaded, file.end)
            self._count_held()

    def close(self) -> None:
        """Gives the disk space back; output that was not uploaded is gone."""
        with self._lock:
            self._file.close()
            for file in (self._open(), *self._closed):
                file.path.unlink(missing_ok=True)
            self._base.with_suffix(LABEL).unlink(missing_ok=True)
            self._directory.add(-self.held)
            self.held = 0
