"""How a worker ends: at the first signal it waits for its commands and for their ends to be settled."""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import PropertyMock, create_autospec

import pytest

from worker.__main__ import Loops, Signals
from worker.consumer import Consumer
from worker.heartbeat import Heartbeat
from worker.lease import Lease
from worker.output.upload import Uploader
from worker.settler import Settler
from worker.wishes import WishReader


@pytest.fixture
def signals() -> Any:
    return create_autospec(Signals, instance=True, count=1)


@pytest.fixture
def loops() -> Loops:
    """A worker whose only consumer has ended."""
    consumer = create_autospec(Consumer, instance=True, exit_codes=create_autospec(Lease))
    consumer.is_alive.return_value = False
    endless = [
        create_autospec(kind, instance=True)
        for kind in (Lease, Settler, Heartbeat, Uploader, WishReader)
    ]
    return Loops(*endless, [consumer])


@pytest.fixture
def settling(loops: Loops) -> Callable[..., None]:
    """What the settler says when it is asked whether it is idle, one after the other."""

    def say(*answers: bool) -> None:
        type(loops.settler).is_idle = PropertyMock(side_effect=answers)  # type: ignore[method-assign]

    return say


def test_a_drain_waits_until_all_ends_are_settled(
    loops: Loops, signals: Any, settling: Callable[..., None]
) -> None:
    settling(False, False, True)
    loops.serve(signals)
    loops.settler.drain.assert_called_once_with()  # type: ignore[attr-defined]
    assert signals.wait.call_count == 2


def test_a_worker_that_lets_go_waits_for_no_settling(
    loops: Loops, signals: Any, settling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages become visible: whoever gets them counts their targets."""
    monkeypatch.setattr("worker.__main__.time.sleep", lambda seconds: None)
    monkeypatch.setattr(os, "_exit", create_autospec(os._exit, side_effect=SystemExit))
    settling(False)
    signals.count = 2
    with pytest.raises(SystemExit):
        loops.serve(signals)
    loops.lease.release_all.assert_called_once_with()  # type: ignore[attr-defined]


def test_a_worker_without_its_settler_lets_go(
    loops: Loops, signals: Any, settling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.__main__.time.sleep", lambda seconds: None)
    monkeypatch.setattr(os, "_exit", create_autospec(os._exit, side_effect=SystemExit))
    loops.settler.is_alive.return_value = False  # type: ignore[attr-defined]
    signals.count = 0
    with pytest.raises(SystemExit):
        loops.serve(signals)
