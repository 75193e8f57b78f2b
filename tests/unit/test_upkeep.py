"""Upkeep: what is over is closed, once, with counters that add up; what nobody ends is failed."""

import json
from typing import Any
from uuid import uuid4

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.config import settings
from chalicelib.domain.ends import Counted
from chalicelib.domain.states import Reason, Status
from chalicelib.domain.targets import in_order
from chalicelib.services import dispatch, upkeep
from chalicelib.store.models import OPEN, Execution, Node, Result
from tests.support.builders import build_execution, build_result, build_targets, serve_node
from tests.support.clock import NOW, Clock

pytestmark = pytest.mark.usefixtures("aws", "clock")


def accepted(*containers: str, unknown: tuple[str, ...] = ()) -> Execution:
    execution = build_execution(
        str(uuid4()),
        f"{NOW:.6f}",
        targets=build_targets(*containers) + build_targets(*unknown, node="n2"),
        refused=("n2",) if unknown else (),
        Open=OPEN,
    )
    execution.save()
    return execution


def write(execution: Execution, container: str, status: Status, **fields: Any) -> None:
    ids = execution.JobId, execution.ExecutorId, container
    build_result(*ids, Status=status, ID="e", **fields).save()


def finished(execution: Execution, container: str, code: int, end: float = NOW) -> None:
    write(execution, container, Status.FINISHED, Inspect={"ExitCode": code}, EndTime=end)


def sent(url: str) -> list[str]:
    """The containers of the messages on the queue, which it takes off."""
    found = []
    while batch := queues.receive(url, 10, 0):
        for message in batch:
            found.append(message.target.container_id)
            queues.delete(url, message.receipt)
    return sorted(found)


def counters(execution: Execution) -> tuple[Any, ...] | None:
    """Total, Succeeded, Failed, EndTime; None while it is open."""
    execution.refresh(consistent_read=True)
    if execution.Open:
        return None
    return execution.Total, execution.Succeeded, execution.Failed, execution.EndTime


def result(execution: Execution, container: str) -> Result | None:
    return store.results.get_result(execution.JobId, execution.ExecutorId, 0, container)


def test_what_is_over_is_closed_with_counters_that_add_up() -> None:
    execution = accepted("c1", "c2", "c3", unknown=("c4",))
    finished(execution, "c1", 0, NOW + 5)
    finished(execution, "c2", 3)
    write(execution, "c3", Status.CREATE_FAILED, Reason=Reason.CONTAINER_PAUSED)
    upkeep.take_turn()
    assert counters(execution) == (4, 1, 3, NOW + 5)
    assert list(store.executions.open_executions()) == []


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_what_is_under_way_on_a_live_node_stays_open(status: Status, clock: Clock) -> None:
    execution = accepted("c1", "c2")
    finished(execution, "c1", 0)
    write(execution, "c2", status)
    clock.now += 10**5
    serve_node(heartbeat=clock.now - upkeep.NODE_GONE_SECONDS + 1)
    upkeep.take_turn()
    assert counters(execution) is None
    assert result(execution, "c2").Status == status  # type: ignore[union-attr]


def test_a_target_that_nobody_took_up_expires_at_its_deadline(clock: Clock) -> None:
    execution = accepted("c1")
    clock.now += settings.delivery_deadline_seconds
    upkeep.take_turn()
    assert counters(execution) is None
    clock.now += 121
    upkeep.take_turn()
    assert counters(execution) == (1, 0, 1, NOW)
    stored = result(execution, "c1")
    assert stored
    assert (stored.Status, stored.Reason) == (Status.CREATE_FAILED, Reason.EXPIRED)


@pytest.mark.parametrize("known", [True, False])
def test_what_ran_on_a_node_that_is_gone_is_lost(clock: Clock, known: bool) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING, StartTime=NOW)
    if known:
        serve_node(heartbeat=NOW)
    clock.now += upkeep.NODE_GONE_SECONDS
    upkeep.take_turn()
    assert result(execution, "c1").Status == Status.RUNNING
    clock.now += 1
    upkeep.take_turn()
    stored = result(execution, "c1")
    assert stored
    assert (stored.Status, stored.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    upkeep.take_turn()
    assert counters(execution) == (1, 0, 1, clock.now)


def test_a_worker_that_ends_a_target_meanwhile_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)

    def ends_now(node_ids: Any) -> dict[str, Node]:
        finished(execution, "c1", 0)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(store.nodes, "get_nodes", ends_now)
        upkeep.take_turn()
    assert result(execution, "c1").Status == Status.FINISHED  # type: ignore[union-attr]
    upkeep.take_turn()
    assert counters(execution) == (1, 1, 0, NOW)


def test_an_execution_is_closed_once() -> None:
    execution = accepted("c1")
    key = execution.JobId, execution.ExecutorId
    assert store.executions.close_execution(*key, Counted(frozenset({0}), frozenset(), NOW))
    assert not store.executions.close_execution(*key, Counted(frozenset(), frozenset({0}), NOW + 1))
    assert counters(execution) == (1, 1, 0, NOW)


def test_a_broken_execution_does_not_keep_the_others_open() -> None:
    broken, whole = accepted("c1"), accepted("c1")
    write(broken, "c1", Status.FINISHED)
    finished(whole, "c1", 0)
    with pytest.raises(upkeep.UpkeepFailed):
        upkeep.take_turn()
    assert counters(whole)
    assert counters(broken) is None


def test_a_start_that_died_before_its_messages_is_sent_later(clock: Clock) -> None:
    url = serve_node(heartbeat=NOW)
    execution = accepted("c1", "c2", "c3")
    finished(execution, "c1", 0)
    upkeep.take_turn()
    assert sent(url) == []
    clock.now += settings.delivery_deadline_seconds / 5 + 1
    upkeep.take_turn()
    assert sent(url) == ["c2", "c3"]


def test_what_was_sent_again_waits_as_long_until_the_next_time(clock: Clock) -> None:
    url = serve_node(heartbeat=NOW)
    accepted("c1")
    counts = []
    for _ in range(0, int(settings.delivery_deadline_seconds), 10):
        clock.now += 10
        upkeep.take_turn()
        counts += sent(url)
    assert counts == ["c1"] * 4


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_what_was_taken_up_is_sent_again_each_hour(clock: Clock, status: Status) -> None:
    execution = accepted("c1")
    write(execution, "c1", status)
    for seconds, expected in [(3590, []), (20, ["c1"]), (20, []), (3600, ["c1"])]:
        clock.now += seconds
        url = serve_node(heartbeat=clock.now)
        upkeep.take_turn()
        assert sent(url) == expected


def test_what_waits_in_a_backlog_is_not_sent_again(clock: Clock) -> None:
    url = serve_node(heartbeat=NOW)
    execution = accepted("c1", "c2")
    dispatch.send_messages(
        execution, in_order(store.targets.get_parts(execution)), {"n1": Node.get("n1")}
    )
    clock.now += settings.delivery_deadline_seconds / 5 + 1
    upkeep.take_turn()
    assert sent(url) == ["c1", "c2"]
    # Both are off the queue now, and nobody took them up.
    upkeep.take_turn()
    assert sent(url) == ["c1", "c2"]


def test_an_execution_whose_messages_cannot_be_sent_fails_the_turn(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve_node(heartbeat=NOW)
    accepted("c1")
    clock.now += settings.delivery_deadline_seconds / 5 + 1
    with monkeypatch.context() as patch:
        patch.setattr(queues, "send", lambda messages: 1 / 0)
        with pytest.raises(upkeep.UpkeepFailed):
            upkeep.take_turn()
    upkeep.take_turn()
    assert sent(url) == ["c1"]


def dead_letter(execution: Execution) -> str:
    ids = {"JobId": execution.JobId, "ExecutorId": execution.ExecutorId, "ContainerId": "c1"}
    return json.dumps(ids)


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_a_dead_letter_ends_its_target(status: Status) -> None:
    execution = accepted("c1")
    write(execution, "c1", status)
    for _ in range(2):
        upkeep.end_dead_letter(dead_letter(execution))
    stored = result(execution, "c1")
    assert stored
    assert (stored.Status, stored.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert "20 times" in stored.E


def test_a_dead_letter_of_a_target_that_is_over_changes_nothing() -> None:
    execution = accepted("c1")
    finished(execution, "c1", 0)
    upkeep.end_dead_letter(dead_letter(execution))
    assert result(execution, "c1").Status == Status.FINISHED  # type: ignore[union-attr]


def test_a_dead_letter_leaves_a_target_that_nobody_took_up_to_its_deadline() -> None:
    execution = accepted("c1")
    upkeep.end_dead_letter(dead_letter(execution))
    assert result(execution, "c1") is None


@pytest.mark.parametrize("body", ["", "hello", "{}", '{"JobId": 1}'])
def test_a_dead_letter_of_others_is_passed_over(body: str) -> None:
    upkeep.end_dead_letter(body)
