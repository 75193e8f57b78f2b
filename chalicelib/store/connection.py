"""The tables' connections to DynamoDB, and reads that use several at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pynamodb.models import Model

from chalicelib.store.models import (
    Counts,
    Execution,
    Node,
    Output,
    Result,
    Segment,
    TargetPart,
    Wishes,
)

_AT_ONCE = 16
_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


def connect() -> None:
    """Makes the clients of the tables that several threads will use."""
    for model in (Execution, TargetPart, Result, Output, Counts, Segment, Wishes, Node):
        _connect(model)


def _connect(model: type[Model]) -> None:
    """PynamoDB makes a client when one is first needed. Many threads then make many, of 10 MB each."""
    _ = model._get_connection().connection.client


def read_at_once(
    model: type[Model], read: Callable[[_Key], _Found], keys: Sequence[_Key]
) -> list[_Found]:
    """What `read` returns for each key. It reads this table only; several keys have a thread each."""
    if len(keys) <= 1:  # A thread pool costs more than a request.
        return [read(key) for key in keys]
    _connect(model)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, keys))
