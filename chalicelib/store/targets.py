"""Reads and writes the targets of executions, part by part. They never change after the start."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.ids import execution_key
from chalicelib.domain.targets import Part, Refusal
from chalicelib.store import unchanging
from chalicelib.store.models import Execution, TargetPart


def place(execution: Execution, parts: Sequence[Part]) -> list[TargetPart]:
    """Gives a new execution its targets. Returns the items that have to be stored with it.

    If there is only one part, it is in the execution's own item.
    """
    execution.Total, execution.Parts = sum(map(len, parts)), len(parts)
    if len(parts) == 1:
        execution.Targets = {"Nodes": parts[0].nodes, "Refused": parts[0].refused}
        return []
    key, expires = _key(execution), execution.ExpiresAt
    return [
        TargetPart(key, part.number, Nodes=part.nodes, Refused=part.refused, ExpiresAt=expires)
        for part in parts
    ]


def get_parts(execution: Execution, numbers: Iterable[int] | None = None) -> list[Part]:
    """These parts of an execution's targets, or all, in order.

    Raises ExecutionNotFound if they have expired.
    """
    if execution.Targets:
        return [_parse(0, execution.Targets["Nodes"], execution.Targets["Refused"])]
    wanted = range(int(execution.Parts)) if numbers is None else sorted(numbers)

    def read(missing: Collection[int], consistently: bool) -> dict[int, Part]:
        keys = [(_key(execution), number) for number in missing]
        items = TargetPart.batch_get(keys, consistent_read=consistently)
        return {int(item.Part): _parse_item(item) for item in items}

    found = unchanging.find_all(wanted, read)
    if len(found) < len(wanted):
        raise ExecutionNotFound(execution.ExecutorId)
    return [found[number] for number in wanted]


def find_part(execution: Execution, number: int) -> Part | None:
    """One part of an execution's targets; None if it has no such part, or has expired."""
    if not 0 <= number < execution.Parts:
        return None
    if execution.Targets:
        return _parse(number, execution.Targets["Nodes"], execution.Targets["Refused"])
    item = unchanging.find(TargetPart, _key(execution), number)
    return _parse_item(item) if item else None


def _key(execution: Execution) -> str:
    return execution_key(execution.JobId, execution.ExecutorId)


def _parse_item(item: TargetPart) -> Part:
    return _parse(int(item.Part), item.Nodes, item.Refused)


def _parse(number: int, nodes: dict[str, Any], refused: dict[str, Any]) -> Part:
    by_node = {
        node_id: [(position, container_id) for position, container_id in targets]
        for node_id, targets in nodes.items()
    }
    return Part(number, by_node, {node_id: Refusal(*why) for node_id, why in refused.items()})
