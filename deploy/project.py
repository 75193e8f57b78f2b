"""Where the project's files are, and a lock for those that several processes make."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is made here and stays on this machine.
LOCAL = ROOT / ".local"
TEMPLATE = ROOT / ".chalice" / "resources.yaml"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of that file, against other processes, until the end of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
