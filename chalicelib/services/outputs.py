"""Keeps an inspect answer within what a Lambda may answer."""

from typing import Any

import msgspec

from chalicelib.schemas.executions import ExecutionAnswer

# The contract's limit is 5 MB. Lambda's is 6 MB with the answer written as a JSON string once more. So
# the size after that second writing is counted, in which a line feed takes three bytes.
MAX_ANSWER_BYTES = 4_900_000
# In characters, of up to seven bytes each: a thousand results have room for these beside the rest.
_LONGEST_ERROR = 400
_LONGEST_NAME = 100


def shorten(answer: ExecutionAnswer) -> None:
    """Shortens the outputs to their ends, each to the same size at most, so that the answer fits.

    If it is too long even without any output (a thousand long commands or errors), errors are cut,
    and the arguments that the engine repeats in each result go too: `ArgumentsTruncated` says so.
    """
    excess = _size(answer) - MAX_ANSWER_BYTES
    if excess <= 0:
        return
    results = [result for result in answer.Result if result.get("Output")]
    sizes = [_size(result["Output"]) for result in results]
    limit = _limit(sizes, sum(sizes) - excess)
    for result, size in zip(results, sizes, strict=True):
        if size > limit:
            result["Output"] = _end(result["Output"], limit)
            result["OutputTruncated"] = True
    if _size(answer) > MAX_ANSWER_BYTES:
        _shorten_texts(answer.Result)


def _limit(sizes: list[int], budget: int) -> int:
    """The size to which each may grow so that all together stay within the budget."""
    left = max(budget, 0)
    for index, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - index)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _end(text: str, limit: int) -> str:
    """The longest end of the text whose size is within the limit.

    Sizes add up, so each step of the bisection encodes only what it would add: half of the step before.
    """
    shortest, longest, left = 0, len(text), limit - _size("")
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        size = _size(text[len(text) - middle : len(text) - shortest]) - _size("")
        if size <= left:
            shortest, left = middle, left - size
        else:
            longest = middle - 1
    return text[len(text) - shortest :]


def _shorten_texts(results: list[dict[str, Any]]) -> None:
    for result in results:
        if len(result.get("E", "")) > _LONGEST_ERROR:
            result["E"] = result["E"][:_LONGEST_ERROR] + "…"
        if "ProcessConfig" in result:
            result["ProcessConfig"] = {**result["ProcessConfig"], "arguments": []}
            result["ProcessConfig"]["entrypoint"] = result["ProcessConfig"]["entrypoint"][
                :_LONGEST_NAME
            ]
            result["ArgumentsTruncated"] = True


def _size(value: Any) -> int:
    return len(msgspec.json.encode(msgspec.json.encode(value).decode()))
