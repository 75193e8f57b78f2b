"""What a piece of code asks of AWS: its requests, and the units that DynamoDB bills for its writes."""

import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.client import BaseClient

_UNIT_BYTES = 1024


class Costs:
    """The requests that were made, by name; `write_units` of the items as they were stored."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.write_units = 0
        self._lock = threading.Lock()

    def add(self, operation: str, parameters: dict[str, Any]) -> None:
        with self._lock:
            self._add(operation, parameters)

    def _add(self, operation: str, parameters: dict[str, Any]) -> None:
        self.requests[operation] += 1
        for part in parameters.get("TransactItems", []):
            # A transaction costs twice.
            self.write_units += 2 * _units(*part.values())
        if operation == "PutItem":
            self.write_units += _units(parameters)


def _units(write: dict[str, Any]) -> int:
    """Units of a put. Of an update only what it sets counts: the test has to bound the rest."""
    values = write.get("Item") or write.get("ExpressionAttributeValues", {})
    return max(1, math.ceil(size_of({"M": values}) / _UNIT_BYTES))


def size_of(value: dict[str, Any]) -> int:
    """How many bytes DynamoDB counts for a value, about: texts, and some for each element."""
    ((kind, content),) = value.items()
    if kind == "M":
        return 3 + sum(len(name) + 1 + size_of(one) for name, one in content.items())
    if kind == "L":
        return 3 + sum(1 + size_of(one) for one in content)
    return len(content.encode() if isinstance(content, str) else str(content))


@contextmanager
def count_costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Costs]:
    """Counts all requests of this process until the end of the block."""
    costs = Costs()
    call = BaseClient._make_api_call

    def counted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        costs.add(operation, parameters)
        return call(client, operation, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", counted)
        yield costs
