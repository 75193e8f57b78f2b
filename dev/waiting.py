"""Waits for a condition, and says what it waited for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dev.errors import LocalError

_TAIL_LINES = 15
_INTERVAL_SECONDS = 0.1


class Watched(Protocol):
    """What must go on running while we wait."""

    @property
    def logs(self) -> list[Path]:
        """Where it writes its logs."""

    def check(self) -> None:
        """Raises LocalError if it has ended."""


def wait_for(condition: Callable[[], bool], seconds: float, what: str, *watched: Watched) -> None:
    """Waits until the condition holds.

    Raises LocalError with `what` after `seconds`, or as soon as one of the watched has ended.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        for process in watched:
            process.check()
        if time.monotonic() > deadline:
            logs = "".join(f"; {tail(log)}" for process in watched for log in process.logs)
            raise LocalError(f"waited {seconds:g} s for {what}, without success{logs}")
        time.sleep(_INTERVAL_SECONDS)


def tail(log: Path) -> str:
    """The end of a log file, as a phrase that has its name."""
    if not log.exists():
        return f"no log at {log}"
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n  ".join([f"the end of {log}:", *lines])
