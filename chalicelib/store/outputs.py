"""The ends of outputs. A short one is in its result, which is read often; a longer one is in an item of
its own, which is read only if somebody wants to see it.

The item is written before the result that points to it, and never changes. An item that no result points
to, because its writer died or was second, is read by nobody, and expires.
"""

import secrets
from collections.abc import Collection
from itertools import chain

from chalicelib.store import unchanging
from chalicelib.store.connection import read_at_once
from chalicelib.store.models import Output, Result

# Above this, the results of a thousand targets would be more than half a megabyte.
_INLINE_BYTES = 512
# As many as DynamoDB answers in one request.
_BATCH = 100
# (Result.Execution, "<ContainerId>/<OutputAt>")
_Key = tuple[str, str]


def keep(result: Result, end: bytes) -> None:
    """Gives the result the end of its output. The caller stores the result afterwards."""
    if len(end) <= _INLINE_BYTES:
        result.Output, result.OutputAt = end, None
        return
    # Each writer has an item of its own. So what a result points to is what its own writer wrote.
    at = secrets.token_hex(4)
    item = Output(result.Execution, f"{result.ContainerId}/{at}")
    item.Bytes, item.ExpiresAt = end, result.ExpiresAt
    item.save()
    result.Output, result.OutputAt = None, at


def get_end(result: Result) -> bytes:
    """The end of one result's output; empty if it has none, or if that has expired."""
    return get_ends([result])[0]


def get_ends(results: list[Result]) -> list[bytes]:
    """The same for many results, in their order."""
    stored = unchanging.find_all({_key(result) for result in results if result.OutputAt}, _read)
    return [
        stored.get(_key(result), b"") if result.OutputAt else bytes(result.Output or b"")
        for result in results
    ]


def _key(result: Result) -> _Key:
    return result.Execution, f"{result.ContainerId}/{result.OutputAt}"


def _read(keys: Collection[_Key], consistently: bool) -> dict[_Key, bytes]:
    def read(batch: list[_Key]) -> list[Output]:
        return list(Output.batch_get(batch, consistent_read=consistently))

    ordered = list(keys)
    batches = [ordered[first : first + _BATCH] for first in range(0, len(keys), _BATCH)]
    items = chain.from_iterable(read_at_once(Output, read, batches))
    return {(item.Execution, item.At): bytes(item.Bytes) for item in items}
