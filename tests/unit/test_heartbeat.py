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


def take_turns(heartbeat: Heartbeat, clock: Clock, turns: int) -> None:
    clock.most_sleeps = len(clock.sleeps) + turns
    with pytest.raises(Enough):
        heartbeat.run()


def served(node_id: str, busy: bool) -> ServedNode:
    return ServedNode(node_id, "host", f"q-{node_id}", lambda: busy)


def test_a_served_node_is_announced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(5.0).install(monkeypatch)
    Heartbeat("w", Pulse()).serve(served("n1", busy=False))
    first = Node.get("n1")
    assert (first.Hostname, first.QueueUrl, first.Worker) == ("host", "q-n1", "w")
    assert first.Heartbeat == 5


@pytest.mark.parametrize(("busy", "announced"), [(True, 120), (False, 30)])
def test_an_hour_of_heartbeats(
    monkeypatch: pytest.MonkeyPatch, waiting: Any, busy: bool, announced: int
) -> None:
    """A busy node is announced each 30 s, an idle one each 120 s; only a busy one asks for its queue."""
    clock = Clock(1000.0).install(monkeypatch)
    heartbeat = Heartbeat("w", Pulse())
    announce = create_autospec(store.nodes.announce)
    monkeypatch.setattr(store.nodes, "announce", announce)
    heartbeat.serve(served("n1", busy))
    take_turns(heartbeat, clock, 120)
    assert announce.call_count == 1 + announced
    assert waiting.call_count == (120 if busy else 0)


def test_an_idle_node_that_could_not_be_announced_is_soon_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(1000.0).install(monkeypatch)
    heartbeat = Heartbeat("w", Pulse())
    heartbeat.serve(served("n1", busy=False))
    with monkeypatch.context() as patch:
        away = create_autospec(store.nodes.announce, side_effect=ConnectionError)
        patch.setattr(store.nodes, "announce", away)
        take_turns(heartbeat, clock, 4)
    assert Node.get("n1").Heartbeat == 1000
    take_turns(heartbeat, clock, 1)
    assert Node.get("n1").Heartbeat == clock.now


def test_a_node_that_fails_does_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch, waiting: Any
) -> None:
    clock = Clock(1000.0).install(monkeypatch)
    heartbeat = Heartbeat("w", Pulse())
    for node_id in ("n1", "n2"):
        heartbeat.serve(served(node_id, busy=True))
    announced: list[str] = []

    def announce(node: Node) -> None:
        announced.append(node.NodeId)
        raise ConnectionError

    monkeypatch.setattr(store.nodes, "announce", announce)
    take_turns(heartbeat, clock, 1)
    assert announced == ["n1", "n2"]
    assert [call.args for call in waiting.call_args_list] == [("q-n1",), ("q-n2",)]


def test_it_is_alive_before_a_node_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """While engine or AWS are away, a new start would not help."""
    clock = Clock(1000.0).install(monkeypatch)
    pulse = create_autospec(Pulse, instance=True)
    take_turns(Heartbeat("w", pulse), clock, 1)
    pulse.beat.assert_called_once()
