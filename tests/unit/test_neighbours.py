"""API and workers of neighbouring versions: each understands what the other one stores and sends."""

from typing import Any

import boto3
import pytest

from chalicelib import store
from chalicelib.clients.queues import TargetMessage, decode
from chalicelib.store import models
from tests.support.builders import build_execution, build_node, build_result, build_targets

pytestmark = pytest.mark.usefixtures("aws")

# What a later version may add to an item: any type.
NEWS: dict[str, Any] = {"News": {"M": {"Deep": {"L": [{"N": "1"}, {"NULL": True}]}}}}


def add_news(table: str) -> None:
    """Adds an attribute that this version does not know to all items of a table."""
    dynamodb = boto3.client("dynamodb")
    for item in dynamodb.scan(TableName=table)["Items"]:
        dynamodb.put_item(TableName=table, Item=item | NEWS)


def test_a_message_may_say_more_than_we_know() -> None:
    known = '"JobId":"j1","ExecutorId":"1.000000","ContainerId":"c1","Part":2'
    ours = TargetMessage("j1", "1.000000", "c1", part=2)
    assert decode(f'{{{known},"News":{{"Deep":[1]}}}}') == decode(f"{{{known}}}") == ours


@pytest.mark.parametrize("targets", [1, 40])
def test_items_may_have_more_than_we_know(targets: int) -> None:
    build_execution(targets=build_targets(*map(str, range(targets)))).save()
    build_result(Status="RUNNING").save()
    build_node().save()
    for model in (models.Execution, models.TargetPart, models.Result, models.Node):
        add_news(model.Meta.table_name)
    execution = store.executions.get_execution("j1", "1.000000")
    assert sum(map(len, store.targets.get_parts(execution))) == targets
    result = store.results.get_result("j1", "1.000000", 0, "c1")
    assert result is not None
    assert result.Status == "RUNNING"
    assert store.nodes.get_nodes(["n1"])["n1"].Hostname == "h"
