"""Keeps the answer to an inspect below the size that a Lambda may answer."""

from typing import Any

import msgspec

from chalicelib.schemas.executions import ExecutionAnswer

# The contract's limit is 5 MB. Lambda writes the answer as a JSON string once more, and its limit of 6 MB
# is for that. So we count the size after this second writing, in which a line feed takes three bytes.
MAX_ANSWER_BYTES = 4_900_000
# In characters, of up to seven bytes each. A thousand results with such texts fit into an answer.
_LONGEST_ERROR = 400
_LONGEST_NAME = 100


def shorten(answer: ExecutionAnswer) -> None:
    """Cuts the outputs until the answer fits. Each keeps its end, and all have the same limit.

    The answer may be too long even without any output (a thousand long commands or errors). Then this
    cuts the errors, and removes the arguments that the engine repeats in each result:
    `ArgumentsTruncated` says so.
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
    """The largest size that each may have, if all together must stay within the budget."""
    left = max(budget, 0)
    for index, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - index)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _end(text: str, limit: int) -> str:
    """The longest end of the text whose size is within the limit.

    The size of two parts is the sum of their sizes. So each step of the bisection encodes only the part
    that it would add, which is half of the step before.
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
