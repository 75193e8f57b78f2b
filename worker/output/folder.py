"""The folder for spools, `SPOOL_DIR`: only this user may put things into it, and locks say who lives."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path


class UnsafeFolder(Exception):
    """A user other than the worker's could put files into the folder for spools."""


def make_safe(folder: Path) -> None:
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


def locked(path: Path) -> FileIO:
    """Opens the file and waits for its lock. The lock is held until the file is closed."""
    file = open_private(path, "a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def lock_dead(parent: Path) -> Iterator[tuple[Path, FileIO]]:
    """Takes the folders whose processes are dead, with their locks. The caller has the parent's lock."""
    for lock_file in parent.glob("*/lock"):
        # Its owner may remove it at this moment.
        with suppress(BlockingIOError, FileNotFoundError):
            lock = open_private(lock_file, "r")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                raise
            yield lock_file.parent, lock


def open_private(path: Path, mode: str) -> FileIO:
    """Opens a file that only we may read, never through a link."""
    return FileIO(
        path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)
    )
