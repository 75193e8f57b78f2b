"""Served nodes are announced again and again, whatever fails."""

from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.store.models import Node
from tests.support.clock import Clock, Enough
from worker.health import Pulse
from worker.heartbeat import Heartbeat, ServedNode

pytestmark = pytest.mark.usefixtures("aws")


@pytest.fixture(autouse=True)
def waiting(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(queues.count_waiting, return_value=7)
    monkeypatch.setattr(queues, "count_waiting", fake)
    return fake


def turn(heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one turn, 20 s after 1000."""
    Clock(1000.0, most_sleeps=1).install(monkeypatch)
    with pytest.raises(Enough):
        heartbeat.run()


def test_a_served_node_is_announced_at_once_and_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(5.0).install(monkeypatch)
    heartbeat = Heartbeat("w", Pulse())
    heartbeat.serve(ServedNode("n1", "host", "q"))
    first = Node.get("n1")
    assert (first.Hostname, first.QueueUrl, first.Worker, first.Heartbeat) == ("host", "q", "w", 5)
    turn(heartbeat, monkeypatch)
    assert Node.get("n1").Heartbeat == 1020


def test_a_node_that_fails_does_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch, waiting: Any
) -> None:
    heartbeat = Heartbeat("w", Pulse())
    for node in ("n1", "n2"):
        heartbeat.serve(ServedNode(node, "host", node))
    announced: list[str] = []

    def announce(node: Node) -> None:
        announced.append(node.NodeId)
        raise ConnectionError

    monkeypatch.setattr(store.nodes, "announce", announce)
    turn(heartbeat, monkeypatch)
    assert announced == ["n1", "n2"]
    assert [call.args for call in waiting.call_args_list] == [("n1",), ("n2",)]


def test_it_is_alive_before_a_node_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """While engine or AWS are away, a new start would not help."""
    pulse = create_autospec(Pulse, instance=True)
    turn(Heartbeat("w", pulse), monkeypatch)
    pulse.beat.assert_called_once()
