"""An inspect answer fits into what a Lambda may answer, whatever was printed."""

from typing import Any

import msgspec
import pytest

from chalicelib.schemas import ExecutionAnswer
from chalicelib.services.outputs import MAX_ANSWER, fit


def answer(outputs: list[str], argument: str = "") -> ExecutionAnswer:
    results: list[dict[str, Any]] = [
        {
            "Output": output,
            "OutputTruncated": False,
            "ProcessConfig": {"entrypoint": "sh", "arguments": [argument]},
        }
        for output in outputs
    ]
    return ExecutionAnswer("j", "1.000000", 1.0, [], results)


def size(of: ExecutionAnswer) -> int:
    return len(msgspec.json.encode(msgspec.json.encode(of).decode()))


def test_what_fits_stays_as_it_is() -> None:
    whole = answer(["x" * 1000] * 10)
    fit(whole)
    assert whole == answer(["x" * 1000] * 10)


@pytest.mark.parametrize("character", ["x", "\n", "\0", '"', "\ufffd", "😀"])
def test_long_outputs_are_cut_to_their_ends_evenly(character: str) -> None:
    long = answer([character * 30_000 + "end"] * 999 + ["short"])
    fit(long)
    assert MAX_ANSWER * 0.95 < size(long) <= MAX_ANSWER
    *cut, short = long.Result
    assert len({len(result["Output"]) for result in cut}) == 1
    assert all(result["Output"].endswith("end") for result in cut)
    assert all(result["OutputTruncated"] for result in cut)
    assert (short["Output"], short["OutputTruncated"]) == ("short", False)


def test_arguments_go_where_they_alone_are_too_long() -> None:
    long = answer(["x"] * 1000, argument="\1" * 4000)
    fit(long)
    assert size(long) <= MAX_ANSWER
    assert all(result["ArgumentsTruncated"] for result in long.Result)
