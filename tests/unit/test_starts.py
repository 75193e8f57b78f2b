"""Starts: what is accepted, and the messages of its targets."""

from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.config import settings
from chalicelib.domain.errors import InvalidRequest, JobNotFound
from chalicelib.domain.states import Status
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.services import jobs, starts
from chalicelib.store.models import Job
from tests.support.clock import Clock
from tests.unit.callers import ADMIN, caller
from tests.unit.executions import only, start


def test_a_start_is_announced_to_its_node(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    (received,) = queues.receive(queues.ensure_queue("n1"), 10, 0)
    assert received.target == queues.TargetMessage(job_id, executor_id, "c1", "a")
    assert only(job_id, executor_id) == {
        "ContainerId": "c1",
        "NodeId": "n1",
        "Status": Status.STARTING,
    }


def test_the_answer_to_a_start_ends_with_it(job_id: str) -> None:
    first, second = start(job_id, ("c1", "n1")), start(job_id, ("c1", "n1"))
    assert jobs.get_job(ADMIN, job_id).Executors == [first, second]


def test_starts_older_than_the_retention_are_not_listed(job_id: str, clock: Clock) -> None:
    start(job_id, ("c1", "n1"))
    clock.now += settings.retention_seconds + 1
    second = start(job_id, ("c1", "n1"))
    assert jobs.get_job(ADMIN, job_id).Executors == [second]


def test_it_is_stored_whether_who_started_it_may_run_as_root(job_id: str) -> None:
    request = StartRequest([Target("c1", "n1")])
    for who, may in ((ADMIN, True), (caller(may_run_as_root=False), False)):
        executor_id = starts.start_job(who, job_id, request).Executors[-1]
        assert store.executions.get_execution(job_id, executor_id).MayRunAsRoot is may


def test_a_start_whose_messages_sqs_does_not_take_is_accepted_all_the_same(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upkeep sends them; an error would make the user start it a second time."""

    def refuse(messages: Any) -> None:
        raise queues.SendFailed

    monkeypatch.setattr(queues, "send", refuse)
    executor_id = start(job_id, ("c1", "n1"))
    assert only(job_id, executor_id)["Status"] == Status.STARTING
    # After a fifth of the deadline.
    created = float(executor_id)
    assert list(store.executions.list_due(created + 119)) == []
    assert [due.executor_id for due in store.executions.list_due(created + 120)] == [executor_id]


def test_a_job_whose_command_does_not_split_any_more_is_refused(job_id: str) -> None:
    job = store.jobs.get_job(job_id)
    job.update([Job.Cmd.set("echo #'\nhi'")])
    with pytest.raises(InvalidRequest, match="Cmd does not split"):
        start(job_id, ("c1", "n1"))
    assert store.jobs.get_job(job_id).Executors == []


def test_no_node_is_read_for_a_caller_that_may_not_see_the_job(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(store.nodes, "get_nodes")
    request = StartRequest([Target("c1", "n1")])
    with pytest.raises(JobNotFound):
        starts.start_job(caller(apps=("b",)), job_id, request)
