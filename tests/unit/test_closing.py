"""Closing: an execution is closed when all of its targets are counted, once, and never before."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import app
from chalicelib import store
from chalicelib.clients import aws, queues
from chalicelib.config import settings
from chalicelib.domain.ends import Counted, End, unite
from chalicelib.services import closing
from chalicelib.store.models import Execution
from tests.support.builders import build_execution, build_targets
from tests.support.clock import NOW

pytestmark = pytest.mark.usefixtures("aws")

ID = "1700000000.000000"


def accepted(job_id: str, *containers: str) -> tuple[str, str]:
    execution = build_execution(job_id, ID, targets=build_targets(*containers))
    store.executions.make_due(execution, NOW)
    execution.save()
    return job_id, ID


def count(key: tuple[str, str], *ends: End) -> Counted:
    return store.counts.add_ends(*key, 0, ends, NOW + 10**6)


def message(key: tuple[str, str]) -> str:
    return json.dumps({"JobId": key[0], "ExecutorId": key[1]})


def counters(key: tuple[str, str]) -> tuple[Any, ...]:
    found = Execution.get(*key, consistent_read=True)
    return bool(found.Open), found.Succeeded, found.Failed, found.EndTime


def test_an_end_that_is_counted_again_counts_once() -> None:
    key = accepted("j", "c0", "c1", "c2")
    first = End(0, True, NOW + 0.25)
    for _ in range(3):
        assert count(key, first) == Counted(frozenset({0}), frozenset(), NOW + 0.25)
    counted = count(key, first, End(1, False, None), End(2, False, NOW + 2))
    assert counted == Counted(frozenset({0}), frozenset({1, 2}), NOW + 2)
    assert store.counts.get_counts(*key) == {0: counted}
    assert store.counts.get_parts([(*key, 0), (*key, 1)]) == {(*key, 0): counted}


def test_parts_are_united() -> None:
    parts = [
        Counted(frozenset({1}), frozenset({2}), 5.0),
        Counted(frozenset({3})),
        Counted(failed=frozenset({4}), end_time=7.0),
    ]
    together = unite(parts)
    assert together == Counted(frozenset({1, 3}), frozenset({2, 4}), 7.0)
    assert len(together) == 4
    assert [position in together for position in (1, 4, 5)] == [True, True, False]
    assert unite([]) == Counted()


def test_only_what_is_over_is_closed() -> None:
    over, under_way, untouched = (accepted(job, "c0", "c1") for job in ("j1", "j2", "j3"))
    count(over, End(0, True, NOW), End(1, False, NOW + 5))
    count(under_way, End(0, True, NOW))
    bodies = {str(n): message(key) for n, key in enumerate((over, under_way, untouched, over))}
    assert closing.close_ended(bodies) == []
    assert counters(over) == (False, 1, 1, NOW + 5)
    assert counters(under_way) == counters(untouched) == (True, None, None, None)


def test_if_no_target_ran_it_ended_as_it_began() -> None:
    key = accepted("j", "c0")
    count(key, End(0, False, None))
    closing.close_ended({"m": message(key)})
    assert counters(key) == (False, 0, 1, float(ID))


def test_what_is_closed_stays_as_it_is() -> None:
    key = accepted("j", "c0")
    count(key, End(0, True, NOW))
    closing.close_ended({"m": message(key)})
    assert not store.executions.close_execution(*key, Counted(failed=frozenset({0})))
    assert closing.close_ended({"m": message(key)}) == []
    assert counters(key) == (False, 1, 0, NOW)


@pytest.mark.parametrize("body", ["", "[]", '{"JobId": "../x", "ExecutorId": "1.000000"}'])
def test_a_message_of_others_is_passed_over(body: str) -> None:
    assert closing.close_ended({"m": body, "n": message(("nobody", ID))}) == []


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """DynamoDB takes no update of one job's executions."""
    close = store.executions.close_execution

    def refuse(job_id: str) -> None:
        def deciding(job: str, *rest: Any) -> bool:
            if job == job_id:
                raise ConnectionError
            return close(job, *rest)

        monkeypatch.setattr(store.executions, "close_execution", deciding)

    return refuse


def test_only_what_could_not_be_closed_comes_again(refusing: Callable[[str], None]) -> None:
    keys = [accepted(f"j{number}", "c0") for number in range(3)]
    for key in keys:
        count(key, End(0, True, NOW))
    refusing("j1")
    records = [
        {"messageId": f"m{n}", "body": message(key), "receiptHandle": "r"}
        for n, key in enumerate(keys)
    ]
    answer = app.close_executions({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert [counters(key)[0] for key in keys] == [False, True, False]


def test_what_is_reported_is_what_closing_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    url = aws.client("sqs").create_queue(QueueName="ended")["QueueUrl"]
    queues.report_ended("nobody", ID)
    monkeypatch.setattr(queues, "settings", replace(settings, ended_queue_url=url))
    queues.report_ended("j", ID)
    (sent,) = aws.client("sqs").receive_message(QueueUrl=url)["Messages"]
    assert queues.decode_ended(sent["Body"]) == queues.EndedMessage("j", ID)
