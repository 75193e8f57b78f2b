"""Wishes: what readers of logs leave for the workers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import store
from chalicelib.store import wishes
from chalicelib.store.models import Wishes
from tests.support.builders import build_execution
from tests.support.clock import NOW
from tests.support.costs import count_costs, size_of

pytestmark = pytest.mark.usefixtures("aws")

EXECUTION = build_execution()


def stored() -> Wishes:
    ((ids, found),) = store.wishes.read_wishes([("j1", "1.000000"), ("j2", "1.000000")])
    assert ids == ("j1", "1.000000")
    return found


def test_a_first_look_begins_a_watch_and_later_ones_prolong_it() -> None:
    assert store.wishes.watch(EXECUTION, NOW) == NOW
    assert (stored().WatchedUntil, stored().ExpiresAt) == (NOW + 30, EXECUTION.ExpiresAt)
    assert store.wishes.watch(EXECUTION, NOW + 20) == NOW
    assert stored().WatchedUntil == NOW + 50


def test_a_look_after_a_gap_begins_a_new_watch() -> None:
    store.wishes.watch(EXECUTION, NOW)
    assert store.wishes.watch(EXECUTION, NOW + 30) == NOW + 30


@pytest.mark.parametrize(("seconds", "writes"), [(0, 0), (19.9, 0), (20, 1)])
def test_a_wish_is_renewed_at_most_every_20_s(
    monkeypatch: pytest.MonkeyPatch, seconds: float, writes: int
) -> None:
    store.wishes.watch(EXECUTION, NOW)
    with count_costs(monkeypatch) as costs:
        store.wishes.watch(EXECUTION, NOW + seconds)
    assert costs.requests["UpdateItem"] == writes


def between_read_and_write(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Any]) -> None:
    """Lets somebody else write once, after we have read."""
    read = wishes._get_wishes

    def read_then_lose(*arguments: Any) -> Wishes:
        found = read(*arguments)
        monkeypatch.setattr(wishes, "_get_wishes", read)
        other()
        return found

    monkeypatch.setattr(wishes, "_get_wishes", read_then_lose)


@pytest.mark.usefixtures("clock")
def test_of_two_first_readers_one_begins_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    between_read_and_write(monkeypatch, lambda: store.wishes.watch(EXECUTION, NOW - 1))
    assert store.wishes.watch(EXECUTION, NOW) == NOW - 1
    assert stored().WatchedUntil == NOW + 29


@pytest.mark.usefixtures("clock")
def test_no_wish_for_a_log_is_lost_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    between_read_and_write(monkeypatch, lambda: store.wishes.assemble(EXECUTION, "c1", NOW))
    store.wishes.assemble(EXECUTION, "c2", NOW + 1)
    store.wishes.watch(EXECUTION, NOW)
    assert stored().Assemble == [["c1", NOW], ["c2", NOW + 1]]


def test_the_newest_wishes_for_logs_stay_each_container_once() -> None:
    for number in range(9):
        store.wishes.assemble(EXECUTION, f"c{number}", NOW + number)
    store.wishes.assemble(EXECUTION, "c5", NOW + 9)
    names = [container for container, _ in stored().Assemble]
    assert names == ["c1", "c2", "c3", "c4", "c6", "c7", "c8", "c5"]


@pytest.mark.parametrize("length", [12, 64, 128])
def test_the_item_stays_below_1_kib(length: int) -> None:
    execution = build_execution("6" * 36, "1800000000.000001")
    store.wishes.watch(execution, NOW + 0.123456)
    for number in range(9):
        store.wishes.assemble(execution, f"{number}".ljust(length, "x"), NOW + number + 0.123456)
    ((_, found),) = store.wishes.read_wishes([(execution.JobId, execution.ExecutorId)])
    assert size_of({"M": found.serialize()}) < 1024
    assert len(json.dumps(found.Assemble)) > 200


def test_executions_that_nobody_wants_anything_of_have_no_wishes() -> None:
    assert list(store.wishes.read_wishes([("j2", "1.000000")])) == []
