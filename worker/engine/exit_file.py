"""The exit codes of an engine's execs on disk: they outlive the worker that heard of them.

All workers of a machine that share SPOOL_DIR write to one file. When it has grown to a certain size, it
becomes the former one, which is read too.
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

# 30,000 ends. A worker keeps 10,000 of them, and each of several on one machine writes all.
_LARGEST_BYTES = 4 * 1024**2


class ExecEnd(NamedTuple):
    """One exec's end, from the engine's event."""

    exec_id: str
    exit_code: int
    # When it came, in nanoseconds; and since when no event before it was missed, in seconds.
    when: int
    since: float


class ExitFile:
    """The file of one engine. A failure to write is logged once: the codes are in memory as well."""

    def __init__(self, folder: Path, engine_url: str) -> None:
        name = hashlib.sha256(engine_url.encode()).hexdigest()[:12]
        self._path = folder / f"exits-{name}"
        self._former = folder / f"exits-{name}.former"
        self._failed = False

    def read(self) -> list[ExecEnd]:
        """What is known, the oldest first."""
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
            # One worker at a time finds that the file is full.
            fcntl.flock(file, fcntl.LOCK_EX)
            # A line that a full disk or our death cuts off ends at the next line feed, and is not JSON.
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
