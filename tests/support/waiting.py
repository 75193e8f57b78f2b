"""Waits for a condition, not for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

A = TypeVar("A")
_PAUSE_SECONDS = 0.05


def wait_until(
    look: Callable[[], A | None],
    seconds: float = 20,
    describe: Callable[[], str] = lambda: "it does not come about",
) -> A:
    """What `look` returns, once that is something. Fails with what `describe` says after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_PAUSE_SECONDS)
    pytest.fail(f"not within {seconds} s: {describe()}")


def eventually(check: Callable[[], A], seconds: float = 10) -> A:
    """Repeats a check until it passes. Its last failure is the failure of the test.

    For what AWS settles a moment later (an index, a queue).
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
