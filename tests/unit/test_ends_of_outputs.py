"""The ends of outputs: short ones in their results, longer ones beside them, never another writer's."""

from typing import Any

import pytest

from chalicelib import store
from chalicelib.store.models import Output, Result
from tests.support.builders import build_result
from tests.support.clock import NOW
from tests.support.costs import count_costs, size_of_item

pytestmark = pytest.mark.usefixtures("aws")
LONG_ID, JOB_ID = "c" * 64, "123e4567-e89b-42d3-a456-426614174000"


def kept(end: bytes, **ids: Any) -> Result:
    result = build_result(**{"ExpiresAt": int(NOW), **ids})
    store.outputs.keep(result, end)
    return result


@pytest.mark.parametrize(("size", "items"), [(0, 0), (512, 0), (513, 1)])
def test_an_end_of_up_to_512_bytes_is_in_its_result(size: int, items: int) -> None:
    result = kept(b"x" * size)
    assert len(list(Output.scan())) == items
    assert (result.OutputAt is None) == (items == 0)
    assert store.outputs.get_end(result) == b"x" * size


def test_what_a_result_points_to_is_what_its_own_writer_wrote() -> None:
    first, second = kept(b"1" * 600), kept(b"2" * 600)
    assert store.outputs.get_end(first) == b"1" * 600
    assert store.outputs.get_end(second) == b"2" * 600


def test_many_ends_come_in_the_order_of_their_results() -> None:
    results = [
        kept(bytes([65 + number % 26]) * (100 if number % 7 else 600), container=f"c{number}")
        for number in range(130)
    ]
    results.insert(5, build_result(container="without"))
    ends = store.outputs.get_ends(results)
    assert ends[5] == b""
    del ends[5]
    assert [end[0] for end in ends] == [65 + number % 26 for number in range(130)]


def test_an_end_that_has_expired_is_empty() -> None:
    result = kept(b"x" * 600)
    for item in Output.scan():
        item.delete()
    assert store.outputs.get_end(result) == b""


def test_a_read_is_repeated_consistently_only_for_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, gone = kept(b"x" * 600), build_result(container="c2", OutputAt="0")
    with count_costs(monkeypatch) as costs:
        assert store.outputs.get_ends([there]) == [b"x" * 600]
    assert (costs.requests, costs.read_units) == ({"BatchGetItem": 1}, 0.5)
    with count_costs(monkeypatch) as costs:
        assert store.outputs.get_ends([there, gone]) == [b"x" * 600, b""]
    assert (costs.requests, costs.read_units) == ({"BatchGetItem": 2}, 0.5)


def test_results_without_a_longer_end_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with count_costs(monkeypatch) as costs:
        store.outputs.get_ends([kept(b"short"), build_result()])
    assert costs.requests == {}


def test_the_longest_end_is_an_item_of_8_kib() -> None:
    kept(b"x" * 8000, job_id=JOB_ID, executor_id="1700000000.000000", container=LONG_ID, part=31)
    (item,) = Output.scan()
    assert size_of_item(item.serialize()) <= 8 * 1024
