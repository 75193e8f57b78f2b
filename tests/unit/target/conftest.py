"""An engine that is a spec, a runner on it, and a clock that does not wait."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.clients.queues import Received
from tests.unit.target.life import NOW, OVER, HeldRunner, accepted, container, printing
from worker import patience
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.engine.paths import EnginePaths
from worker.target import adopt, attachment, claim, ending, run, watch


class WaitsForEver(BaseException):
    """Raised at the thousandth look at something that does not change."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time stands still; a sleeper is woken at once, but not for ever."""
    clock = SimpleNamespace(slept=0, seconds=0.0)

    def sleep(seconds: float) -> None:
        clock.slept += 1
        clock.seconds += seconds
        if clock.slept > 1000:
            raise WaitsForEver

    clock.time, clock.sleep = lambda: NOW, sleep
    clock.monotonic = lambda: time.monotonic() + clock.seconds  # real time passes too
    for module in (adopt, attachment, claim, ending, run, watch):
        monkeypatch.setattr(module, "time", clock)
    for patient in (patience.insist, patience.insist_on_log):
        monkeypatch.setattr(patient, "sleep", sleep)
    return clock


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
