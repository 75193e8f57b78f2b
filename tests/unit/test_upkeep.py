"""Upkeep: what is over is closed, once, with counters that add up; what nobody ends is failed."""

import json
from typing import Any
from unittest.mock import create_autospec
from uuid import uuid4

import pytest

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.config import settings
from chalicelib.domain.ends import Counted, End
from chalicelib.domain.segments import Segment, log_name
from chalicelib.domain.states import Reason, Status
from chalicelib.domain.targets import MOST_IN_PART, in_order
from chalicelib.services import dispatch, upkeep
from chalicelib.store.models import Execution, Node, Result, TargetPart
from tests.support.builders import build_execution, build_result, build_targets, serve_node
from tests.support.clock import NOW, Clock

pytestmark = pytest.mark.usefixtures("aws", "clock")


def accepted(*containers: str, unknown: tuple[str, ...] = ()) -> Execution:
    """An execution that upkeep looks at in its next turn."""
    execution = build_execution(
        str(uuid4()),
        f"{NOW:.6f}",
        targets=build_targets(*containers) + build_targets(*unknown, node="n2"),
        refused=("n2",) if unknown else (),
    )
    store.executions.make_due(execution, NOW)
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
    assert execution.DueTime is None
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
    assert list(store.executions.list_due(NOW + 10**6)) == []


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
    assert counters(execution) == (1, 0, 1, clock.now)


@pytest.mark.parametrize("uploaded", [b"", b"half of it"])
def test_what_was_uploaded_of_a_lost_target_is_put_together(clock: Clock, uploaded: bytes) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)
    log = log_name(execution.JobId, execution.ExecutorId, "c1")
    if uploaded:
        store.segments.add(log, Segment(0, len(uploaded), uploaded), int(execution.ExpiresAt))
    clock.now += upkeep.NODE_GONE_SECONDS + 1
    upkeep.take_turn()
    stored = result(execution, "c1")
    assert stored
    size = len(uploaded)
    assert (stored.OutputSize, stored.OutputIncomplete) == (size or None, True)
    assert store.segments.get_state(log).assembled == size
    assert logs.read(logs.whole_key(log, size), 100) == uploaded


def test_a_target_is_lost_even_if_its_log_cannot_be_put_together(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(log: str) -> Any:
        raise ConnectionError

    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)
    clock.now += upkeep.NODE_GONE_SECONDS + 1
    monkeypatch.setattr(store.segments, "list_segments", fail)
    upkeep.take_turn()
    stored = result(execution, "c1")
    assert stored
    assert (stored.Reason, stored.OutputIncomplete) == (Reason.LOST, True)


def test_a_very_long_log_of_a_lost_target_stays_in_its_segments(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)
    log = log_name(execution.JobId, execution.ExecutorId, "c1")
    store.segments.add(log, Segment(0, 5 * 1024**3), int(execution.ExpiresAt))
    clock.now += upkeep.NODE_GONE_SECONDS + 1
    upkeep.take_turn()
    stored = result(execution, "c1")
    assert stored
    assert (stored.OutputSize, store.segments.get_state(log).assembled) == (5 * 1024**3, 0)


def test_a_worker_that_ends_a_target_meanwhile_is_right(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)
    clock.now += upkeep.NODE_GONE_SECONDS + 1

    def ends_now(node_ids: Any) -> dict[str, Node]:
        finished(execution, "c1", 0)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(store.nodes, "get_nodes", ends_now)
        upkeep.take_turn()
    assert result(execution, "c1").Status == Status.FINISHED  # type: ignore[union-attr]
    assert counters(execution) is None
    upkeep.take_turn()
    assert counters(execution) == (1, 1, 0, NOW)


def test_an_execution_is_closed_once() -> None:
    execution = accepted("c1")
    key = execution.JobId, execution.ExecutorId
    assert store.executions.close_execution(*key, Counted(frozenset({0}), frozenset(), NOW))
    assert not store.executions.close_execution(*key, Counted(frozenset(), frozenset({0}), NOW + 1))
    assert counters(execution) == (1, 1, 0, NOW)


def test_a_broken_execution_does_not_keep_the_others_open(clock: Clock) -> None:
    """It comes back a minute later, when it may be whole."""
    broken, whole = accepted("c1"), accepted("c1")
    write(broken, "c1", Status.FINISHED)
    finished(whole, "c1", 0)
    with pytest.raises(upkeep.UpkeepFailed):
        upkeep.take_turn()
    assert counters(whole)
    finished(broken, "c1", 0)
    upkeep.take_turn()
    assert counters(broken) is None
    clock.now += 60
    upkeep.take_turn()
    assert counters(broken) == (1, 1, 0, NOW)


def test_what_has_expired_fails_no_turn(clock: Clock) -> None:
    """A command may run on for longer than results are kept. DynamoDB deletes items in any order."""
    execution = accepted(*(f"c{number}" for number in range(MOST_IN_PART + 1)))
    for part in TargetPart.query(f"{execution.JobId}/{execution.ExecutorId}"):
        part.delete()
    with pytest.raises(upkeep.UpkeepFailed):
        upkeep.take_turn()
    clock.now = int(execution.ExpiresAt)
    upkeep.take_turn()


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
    assert counts == ["c1"] * 5


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_what_was_taken_up_is_sent_again_each_hour(clock: Clock, status: Status) -> None:
    execution = accepted("c1")
    write(execution, "c1", status)
    # It is sent when upkeep looks whether the node is gone: an hour after its last heartbeat.
    for seconds, expected in [(120, []), (3590, []), (20, ["c1"]), (3590, []), (20, ["c1"])]:
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
    clock.now += settings.delivery_deadline_seconds / 5
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
    clock.now += 60
    upkeep.take_turn()
    assert sent(url) == ["c1"]


def test_turns_that_overlap_share_the_work() -> None:
    execution = accepted("c1")
    (due,) = store.executions.list_due(NOW)
    taken = store.executions.take(due, NOW + 60)
    assert taken
    assert (taken.JobId, taken.Total, taken.DueTime) == (execution.JobId, 1, NOW + 60)
    assert store.executions.take(due, NOW + 60) is None
    assert list(store.executions.list_due(NOW)) == []


def test_a_turn_that_took_too_long_does_not_put_off_what_another_one_took() -> None:
    accepted("c1")
    (due,) = store.executions.list_due(NOW)
    slow = store.executions.take(due, NOW + 60)
    (due,) = store.executions.list_due(NOW + 60)
    quick = store.executions.take(due, NOW + 120)
    assert slow
    assert quick
    store.executions.put_off(slow, NOW + 9000, NOW + 60)
    (due,) = store.executions.list_due(NOW + 10**4)
    assert due.time == NOW + 120
    store.executions.put_off(quick, NOW + 500, None)
    (due,) = store.executions.list_due(NOW + 10**4)
    assert due.time == NOW + 500


def test_a_closed_execution_stays_closed_when_it_is_put_off() -> None:
    execution = accepted("c1")
    (due,) = store.executions.list_due(NOW)
    taken = store.executions.take(due, NOW + 60)
    assert taken
    key = execution.JobId, execution.ExecutorId
    assert store.executions.close_execution(*key, Counted(frozenset({0}), frozenset(), NOW))
    store.executions.put_off(taken, NOW + 500, NOW)
    assert counters(execution) == (1, 1, 0, NOW)
    assert list(store.executions.list_due(NOW + 10**6)) == []
    assert store.executions.take(due, NOW + 60) is None


def test_what_is_counted_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 70 targets in three parts, only the part that is not complete."""
    execution = accepted(*(f"c{number:02}" for number in range(70)))
    for part, positions in enumerate([range(32), range(32, 63), range(64, 70)]):
        ends = [End(position, True, NOW) for position in positions]
        store.counts.add_ends(execution.JobId, execution.ExecutorId, part, ends, NOW)
    build_result(
        execution.JobId, execution.ExecutorId, "c63", 1, Status=Status.CREATE_FAILED
    ).save()
    get = store.results.get_results
    asked = []

    def watched(job_id: str, executor_id: str, parts: set[int]) -> dict[tuple[int, str], Result]:
        asked.append(parts)
        return get(job_id, executor_id, parts)

    monkeypatch.setattr(store.results, "get_results", watched)
    upkeep.take_turn()
    assert asked == [{1}]
    assert counters(execution) == (70, 69, 1, NOW)


def test_a_command_of_a_day_is_looked_at_once_an_hour(clock: Clock) -> None:
    execution = accepted("c1")
    write(execution, "c1", Status.RUNNING)
    looks = 0
    while clock.now < NOW + 86_400:
        serve_node(heartbeat=clock.now)
        upkeep.take_turn()
        looks += 1
        (due,) = store.executions.list_due(NOW + 10**6)
        assert due.time > clock.now
        clock.now = due.time
    assert looks == 24


def dead_letter(execution: Execution) -> str:
    ids = {"JobId": execution.JobId, "ExecutorId": execution.ExecutorId, "ContainerId": "c1"}
    return json.dumps(ids)


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_a_dead_letter_ends_its_target(status: Status) -> None:
    execution = accepted("c1")
    write(execution, "c1", status)
    for _ in range(2):
        upkeep.end_dead_letter(dead_letter(execution))
    counts = store.counts.get_counts(execution.JobId, execution.ExecutorId)
    assert counts == {0: Counted(frozenset(), frozenset({0}), NOW)}
    stored = result(execution, "c1")
    assert stored
    assert (stored.Status, stored.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert "20 times" in stored.E


def test_a_dead_letter_of_a_target_that_is_over_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker may have died before it counted it, and no message comes again."""
    execution = accepted("c1")
    finished(execution, "c1", 0)
    report = create_autospec(queues.report_ended)
    monkeypatch.setattr(queues, "report_ended", report)
    upkeep.end_dead_letter(dead_letter(execution))
    assert result(execution, "c1").Status == Status.FINISHED  # type: ignore[union-attr]
    counts = store.counts.get_counts(execution.JobId, execution.ExecutorId)
    assert counts == {0: Counted(frozenset({0}), frozenset(), NOW)}
    report.assert_called_once_with(execution.JobId, execution.ExecutorId)


def test_a_dead_letter_leaves_a_target_that_nobody_took_up_to_its_deadline() -> None:
    execution = accepted("c1")
    upkeep.end_dead_letter(dead_letter(execution))
    assert result(execution, "c1") is None


@pytest.mark.parametrize("body", ["", "hello", "{}", '{"JobId": 1}'])
def test_a_dead_letter_of_others_is_passed_over(body: str) -> None:
    upkeep.end_dead_letter(body)
