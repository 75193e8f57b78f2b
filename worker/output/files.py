"""The files of a spool: their names say where in the log each begins."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.output.folder import open_private


@dataclass(frozen=True)
class SpoolFile:
    """A file with `size` bytes of a log, from the byte `first` on."""

    path: Path
    first: int
    size: int

    @property
    def end(self) -> int:
        """The place of the first byte after it."""
        return self.first + self.size

    def open(self, start: int) -> "Section":
        """The bytes of the log from `start` on, as far as this file has them."""
        return Section(self.path, start - self.first, self.end - start)


def file_path(base: Path, first: int) -> Path:
    """The path of a spool's file that begins there in the log."""
    return base.with_suffix(f".{first}")


class Section(io.RawIOBase):
    """Reads some bytes of a file that may grow at the same time."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = open_private(path, "r")
        self._start, self._size = start, size
        self.seek(0)

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._file.seek(self._start + base + offset)
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        left = max(self._size - self.tell(), 0)
        return self._file.readinto(memoryview(buffer)[:left]) or 0

    def close(self) -> None:
        self._file.close()
        super().close()
