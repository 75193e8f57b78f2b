"""Reads that may miss what was written in the last second: what they missed is read once more."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.client import BaseClient

from chalicelib import store
from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.targets import in_order
from chalicelib.store.models import Result
from tests.support.builders import build_execution, build_node, build_result, build_targets

pytestmark = pytest.mark.usefixtures("aws")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each read whether it was consistent. The others find nothing: all was written just now."""
    made = []
    call = BaseClient._make_api_call

    def late(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation not in ("GetItem", "BatchGetItem"):
            return call(client, operation, parameters)
        ((table, asked),) = parameters.get("RequestItems", {"": parameters}).items()
        made.append(asked.get("ConsistentRead", False))
        found = {"Responses": {table: []}, "UnprocessedKeys": {}} if table else {}
        return call(client, operation, parameters) if made[-1] else found

    monkeypatch.setattr(BaseClient, "_make_api_call", late)
    return made


def long_output() -> Result:
    result = build_result()
    store.outputs.keep(result, b"x" * 600)
    return result


def write_all() -> None:
    many = build_targets(*(f"c{number}" for number in range(40)))
    build_execution(targets=many).save()
    build_node("n1").save()


def get_parts() -> Any:
    return store.targets.get_parts(build_execution(targets=build_targets(*map(str, range(40)))))


@pytest.mark.parametrize(
    "read",
    [
        lambda: store.executions.get_execution("j1", "1.000000").JobId == "j1",
        lambda: len(in_order(get_parts())) == 40,
        lambda: store.nodes.get_nodes(["n1"]).keys() == {"n1"},
        lambda: store.outputs.get_end(long_output()) == b"x" * 600,
    ],
    ids=["an execution", "its parts", "a node", "an output"],
)
def test_what_was_written_just_now_is_found(reads: list[bool], read: Callable[[], bool]) -> None:
    write_all()
    assert read()
    assert reads == [False, True]


def test_what_is_not_there_is_not_found(reads: list[bool]) -> None:
    with pytest.raises(ExecutionNotFound):
        store.executions.get_execution("j1", "1.000000")
    assert store.nodes.get_nodes(["n1"]) == {}
