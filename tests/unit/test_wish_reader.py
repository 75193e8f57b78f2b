"""Wishes reach those who do them, and nothing is read when nothing runs."""

from collections.abc import Callable
from unittest.mock import Mock, call, create_autospec

import pytest

from chalicelib import store
from tests.support.builders import build_execution
from tests.support.clock import NOW, Clock, Enough
from tests.support.costs import count_costs
from worker.health import Pulse
from worker.output.upload import Uploader
from worker.wishes import WishReader

pytestmark = pytest.mark.usefixtures("aws")

IDS = ("j1", "1.000000")
ASK = call.executions()


@pytest.fixture
def uploader() -> Mock:
    """It follows logs of two executions."""
    made: Mock = create_autospec(Uploader, instance=True)
    made.executions.return_value = {IDS, ("j1", "2.000000")}
    return made


@pytest.fixture
def turn(uploader: Mock, clock: Clock) -> Callable[[], None]:
    """Lets a reader of wishes take one turn."""

    def take() -> None:
        clock.most_sleeps = len(clock.sleeps) + 1
        with pytest.raises(Enough):
            WishReader(Pulse(), uploader).run()

    return take


def test_an_execution_is_watched_for_as_long_as_is_left(
    uploader: Mock, turn: Callable[[], None], clock: Clock
) -> None:
    store.wishes.watch(build_execution(), NOW)
    turn()
    turn()
    seconds = store.wishes.WATCH_SECONDS
    watched = [call.watch(*IDS, NOW, seconds - 2), call.watch(*IDS, NOW, seconds - 4)]
    assert uploader.mock_calls == [ASK, watched[0], ASK, watched[1]]


def test_a_watch_that_is_over_is_nothing(
    uploader: Mock, turn: Callable[[], None], clock: Clock
) -> None:
    store.wishes.watch(build_execution(), NOW)
    clock.now += store.wishes.WATCH_SECONDS
    turn()
    assert uploader.mock_calls == [ASK]


def test_a_log_is_put_together_for_the_container_that_was_named(
    uploader: Mock, turn: Callable[[], None]
) -> None:
    store.wishes.assemble(build_execution(), "c1", NOW)
    store.wishes.assemble(build_execution(), "c2", NOW + 1)
    turn()
    wished = [call.assemble("j1/1.000000/c1", NOW), call.assemble("j1/1.000000/c2", NOW + 1)]
    assert uploader.mock_calls == [ASK, *wished]


def test_wishes_are_read_every_2_s(turn: Callable[[], None], clock: Clock) -> None:
    turn()
    assert clock.sleeps == [2, 2]


def test_if_nothing_runs_nothing_is_read(
    uploader: Mock, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploader.executions.return_value = set()
    with count_costs(monkeypatch) as costs:
        turn()
    assert costs.requests == {}


def test_a_turn_that_fails_does_not_end_the_loop(uploader: Mock, clock: Clock) -> None:
    uploader.watch.side_effect = [ConnectionError, None]
    store.wishes.watch(build_execution(), NOW)
    clock.most_sleeps = 2
    with pytest.raises(Enough):
        WishReader(Pulse(), uploader).run()
    assert uploader.watch.call_count == 2
