"""The one clock of the unit tests. It stands in for the module `time` in all modules of ours."""

import sys
from types import ModuleType
from typing import Self

import pytest

NOW = 1_800_000_000.0
_OURS = ("chalicelib", "deploy", "worker")
# What our modules retry with measures time and waits too.
_RETRIES = ("tenacity", "tenacity.nap")


class Enough(BaseException):
    """Ends what waits for ever, or a loop without an end. No code of ours catches it."""


class Clock:
    """Time passes only when somebody sleeps, or when a test moves `now`."""

    def __init__(self, now: float = NOW, most_sleeps: int = 1000) -> None:
        self.now = now
        self.most_sleeps = most_sleeps
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wakes at once, but the sleep after `most_sleeps` raises Enough."""
        self.sleeps.append(seconds)
        if len(self.sleeps) > self.most_sleeps:
            raise Enough
        self.now += seconds

    def install(self, patch: pytest.MonkeyPatch) -> Self:
        """From now on, all modules of ours that are imported take the time from this clock."""
        for name, module in list(sys.modules.items()):
            is_ours = name.partition(".")[0] in _OURS or name in _RETRIES
            if is_ours and isinstance(vars(module).get("time"), ModuleType | Clock):
                patch.setattr(module, "time", self)
        return self


class TickingClock(Clock):
    """It goes on by a second each time somebody asks for the time."""

    def time(self) -> float:
        self.now += 1
        return self.now
