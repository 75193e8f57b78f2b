"""An inspect answer fits into what a Lambda may answer, whatever was printed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.schemas.executions import ExecutionAnswer
from chalicelib.services import outputs as room
from chalicelib.services.outputs import MAX_ANSWER_BYTES, shorten


def answer(outputs: list[str], argument: str = "") -> ExecutionAnswer:
    results: list[dict[str, Any]] = [
        {
            "Output": output,
            "OutputTruncated": False,
            "ProcessConfig": {"entrypoint": "sh", "arguments": [argument]},
        }
        for output in outputs
    ]
    return ExecutionAnswer("j", "1.000000", 1.0, [], results, len(results), len(results), 0)


def size(of: ExecutionAnswer) -> int:
    return len(msgspec.json.encode(msgspec.json.encode(of).decode()))


def test_what_fits_stays_as_it_is() -> None:
    whole = answer(["x" * 1000] * 10)
    shorten(whole)
    assert whole == answer(["x" * 1000] * 10)


@pytest.mark.parametrize("character", ["x", "\n", "\0", '"', "\ufffd", "😀"])
def test_long_outputs_are_cut_to_their_ends_evenly(character: str) -> None:
    long = answer([character * 8_000 + "end"] * 999 + ["short"])
    shorten(long)
    assert MAX_ANSWER_BYTES * 0.95 < size(long) <= MAX_ANSWER_BYTES
    *cut, short = long.Result
    assert len({len(result["Output"]) for result in cut}) == 1
    assert all(result["Output"].endswith("end") for result in cut)
    assert all(result["OutputTruncated"] for result in cut)
    assert (short["Output"], short["OutputTruncated"]) == ("short", False)


def test_arguments_go_where_they_alone_are_too_long() -> None:
    long = answer(["x"] * 1000, argument="\1" * 4000)
    shorten(long)
    assert size(long) <= MAX_ANSWER_BYTES
    assert all(result["ArgumentsTruncated"] for result in long.Result)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.integers(0, 1200))
def test_outputs_are_cut_from_the_front_no_more_than_needed(texts: list[str], limit: int) -> None:
    whole, cut = answer(texts), answer(texts)
    bare = size(answer([""] * len(texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "MAX_ANSWER_BYTES", bare + limit)
        shorten(cut)
    assert size(cut) <= bare + limit or not any(result["Output"] for result in cut.Result)
    for before, after in zip(whole.Result, cut.Result, strict=True):
        assert before["Output"].endswith(after["Output"])
        assert after["OutputTruncated"] == (before["Output"] != after["Output"])
    if size(whole) <= bare + limit:
        assert cut == whole


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(0, 300))
def test_shares_are_even_and_use_what_there_is(sizes: list[int], budget: int) -> None:
    limit = room._limit(sizes, budget)
    used = sum(min(size, limit) for size in sizes)
    assert used <= budget
    assert limit >= max(sizes) or budget - used < len(sizes)


def test_an_answer_at_the_limit_is_untouched_and_one_byte_more_is_not() -> None:
    free = MAX_ANSWER_BYTES - size(answer([""]))
    exact, over = answer(["x" * free]), answer(["x" * (free + 1)])
    shorten(exact)
    shorten(over)
    assert exact == answer(["x" * free])
    assert over.Result[0]["OutputTruncated"]


def test_long_errors_on_a_thousand_targets_fit_too() -> None:
    long = answer([""] * 1000)
    for result in long.Result:
        result["E"] = "密" * 2000
    shorten(long)
    assert len(msgspec.json.encode(long)) < 5_000_000
