"""An engine that is a spec, a runner on it, and a clock that does not wait."""

import time
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.clients.queues import Received
from tests.support.clock import NOW, Clock
from tests.unit.target.life import OVER, HeldRunner, accepted, container, printing
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.engine.paths import EnginePaths


class HalfClock(Clock):
    """The date stands still. Time passes as it does for the threads that wait, and by sleeps too."""

    def time(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.sleeps)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return HalfClock().install(monkeypatch)


@pytest.fixture
def engine() -> Any:
    fake = create_autospec(Engine, instance=True)
    fake.inspect_container.side_effect = lambda id: container(id)
    fake.read_file.return_value = b"u:x:1000:1000:::\n"
    fake.paths = EnginePaths()
    fake.is_alive.return_value = False
    fake.create.return_value = "e1"
    fake.start.side_effect = printing((1, b"hi\n"))
    fake.inspect.return_value = dict(OVER)
    return fake


@pytest.fixture
def exit_codes() -> Any:
    fake = create_autospec(ExitCodes, instance=True)
    fake.find.return_value = fake.wait_for.return_value = None
    fake.since = "2027-01-15T08:00:00+00:00"
    return fake


@pytest.fixture
def message() -> Received:
    return accepted(NOW)


@pytest.fixture
def runner(engine: Any, exit_codes: Any, tmp_path: Path) -> HeldRunner:
    return HeldRunner(engine, exit_codes, tmp_path)
