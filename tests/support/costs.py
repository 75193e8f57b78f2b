"""What a piece of code asks of AWS: its requests, and the units that DynamoDB bills."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.client import BaseClient

_WRITE_UNIT_BYTES, _READ_UNIT_BYTES = 1024, 4096
Item = dict[str, Any]
_Call = Callable[[str, dict[str, Any]], dict[str, Any]]


class Costs:
    """The requests that were made, by name, and the units of items as they are stored.

    Writes to indexes are not among them. An update counts as large as its item is afterwards: if it made
    the item smaller, DynamoDB bills more.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.write_units = 0
        self.read_units = 0.0
        self.bytes_read = 0
        self._lock = threading.Lock()

    def add(self, operation: str, parameters: dict[str, Any], call: _Call) -> dict[str, Any]:
        """Makes the call, and adds what it costs. Other calls that it makes cost nothing here."""
        answer = call(operation, parameters)
        written = _count_writes(operation, parameters, call)
        reads = [
            (consistently, sum(map(size_of_item, items)))
            for consistently, items in _list_reads(operation, parameters, answer, call)
        ]
        with self._lock:
            self.requests[operation] += 1
            self.write_units += written
            self.bytes_read += sum(size for _, size in reads)
            self.read_units += sum(_read_units(*read) for read in reads)
        return answer


def _count_writes(operation: str, parameters: dict[str, Any], call: _Call) -> int:
    if operation in ("PutItem", "UpdateItem"):
        return _write_units(parameters, call)
    writes = (next(iter(one.values())) for one in parameters.get("TransactItems", []))
    # A transaction costs twice.
    return 2 * sum(_write_units(write, call) for write in writes)


def _write_units(write: dict[str, Any], call: _Call) -> int:
    item = write.get("Item") or _get(write, call)
    return max(1, math.ceil(size_of_item(item) / _WRITE_UNIT_BYTES))


def _get(write: dict[str, Any], call: _Call) -> Item:
    """The item as it is after an update; an empty one after a deletion."""
    wanted = {"TableName": write["TableName"], "Key": write["Key"], "ConsistentRead": True}
    found: Item = call("GetItem", wanted).get("Item", {})
    return found


def _list_reads(
    operation: str, parameters: dict[str, Any], answer: dict[str, Any], call: _Call
) -> list[tuple[bool, list[Item]]]:
    """What was read: whether consistently, and the items that are billed as one."""
    if operation == "BatchGetItem":
        return [
            (asked.get("ConsistentRead", False), [item])
            for table, asked in parameters["RequestItems"].items()
            for item in answer["Responses"].get(table, [])
        ]
    if operation not in ("GetItem", "Query", "Scan"):
        return []
    if "ProjectionExpression" in parameters and "IndexName" not in parameters:
        # Whole items are billed, whatever the answer has of them.
        names = ("ProjectionExpression", "ExpressionAttributeNames")
        whole = {name: value for name, value in parameters.items() if name not in names}
        if operation == "Query":
            whole["ExpressionAttributeNames"] = _used_names(parameters)
        answer = call(operation, whole)
    items = answer.get("Items", [answer["Item"]] if "Item" in answer else [])
    return [(parameters.get("ConsistentRead", False), items)]


def _used_names(parameters: dict[str, Any]) -> dict[str, str]:
    """The names that a query uses beside its projection."""
    texts = " ".join(
        parameters.get(name, "") for name in ("KeyConditionExpression", "FilterExpression")
    )
    names: dict[str, str] = parameters["ExpressionAttributeNames"]
    return {short: name for short, name in names.items() if short in texts.split()}


def _read_units(consistently: bool, size: int) -> float:
    units = max(1, math.ceil(size / _READ_UNIT_BYTES))
    return units if consistently else units / 2


def size_of_item(item: Item) -> int:
    """How many bytes DynamoDB counts for an item."""
    return sum(len(name.encode()) + size_of(value) for name, value in item.items())


def size_of(value: dict[str, Any]) -> int:
    """How many bytes DynamoDB counts for a value."""
    ((kind, content),) = value.items()
    match kind:
        case "M":
            return 3 + sum(1 + len(name.encode()) + size_of(one) for name, one in content.items())
        case "L":
            return 3 + sum(1 + size_of(one) for one in content)
        case "SS" | "NS" | "BS":
            return 3 + sum(1 + size_of({kind[0]: one}) for one in content)
        case "N":
            digits = content.lstrip("-").replace(".", "").strip("0")
            return 1 + math.ceil(len(digits) / 2)
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case _:
            return 1


@contextmanager
def count_costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Costs]:
    """Counts all requests of this process until the end of the block."""
    costs = Costs()
    call = BaseClient._make_api_call

    def counted(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        return costs.add(operation, parameters, lambda *asked: call(client, *asked))

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", counted)
        yield costs
