"""The exit codes of an engine's execs on disk: they outlive the worker that heard of them.

All workers of a machine that share SPOOL_DIR write to one file. A file that has grown too large gets the
ending `.former`, and a new one begins. Both are read.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from worker import metrics

log = structlog.stdlib.get_logger(__name__)

# This is room for 30,000 ends. A worker keeps 10,000, and several workers on one machine each write all.
_LARGEST_BYTES = 4 * 1024**2


class ExecEnd(NamedTuple):
    """One exec's end, from the engine's event."""

    exec_id: str
    exit_code: int
    # When the event came, in nanoseconds.
    when: int
    # No event was missed between this time, in seconds, and the event.
    since: float


class ExitFile:
    """The file of one engine. If writing fails, that is logged only once: the codes are in memory too."""

    def __init__(self, folder: Path, engine_url: str) -> None:
        name = hashlib.sha256(engine_url.encode()).hexdigest()[:12]
        self._path = folder / f"exits-{name}"
        self._former = folder / f"exits-{name}.former"
        self._failed = False

    def read(self) -> list[ExecEnd]:
        """The ends that are on disk, the oldest first."""
        known = [*_read(self._former), *_read(self._path)]
        return sorted(known, key=lambda end: end.when)

    def add(self, end: ExecEnd) -> None:
        """Adds an end."""
        try:
            self._append(f"\n{json.dumps(end)}".encode())
        except OSError:
            metrics.RETRIES.labels("exit codes").inc()
            if not self._failed:
                log.warning("exit codes not kept on disk", file=str(self._path), exc_info=True)
            self._failed = True
        else:
            self._failed = False

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o600)
        try:
            # Only one worker at a time may find that the file is full, and rename it.
            fcntl.flock(file, fcntl.LOCK_EX)
            # A full disk or our death may cut a line off. The next line begins with a line feed: so only
            # the cut one is spoilt, and it is not JSON.
            os.write(file, line)
            with suppress(FileNotFoundError):  # another worker was first
                if self._path.stat().st_size > _LARGEST_BYTES:
                    self._path.replace(self._former)
        finally:
            os.close(file)


def _read(path: Path) -> Iterator[ExecEnd]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError:
        log.warning("exit codes on disk not read", file=str(path), exc_info=True)
        return
    for line in lines:
        with suppress(msgspec.DecodeError, RecursionError):
            yield msgspec.json.decode(line, type=ExecEnd)
