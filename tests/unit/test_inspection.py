"""Inspecting an execution: results, stored or not, and logs."""

from typing import Any
from uuid import uuid4

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.config import settings
from chalicelib.domain.errors import ExecutionNotFound, JobNotFound
from chalicelib.domain.states import Reason, Status
from chalicelib.services import inspection, jobs
from chalicelib.services.inspection import _whole_characters
from tests.support.builders import build_inspect, build_node, build_result
from tests.support.clock import Clock
from tests.unit.callers import ADMIN
from tests.unit.executions import only, start


def write(job_id: str, executor_id: str, status: Status, **fields: Any) -> None:
    """What a worker stores for the container c1."""
    build_result(job_id, executor_id, Status=status, **fields).save()


def test_a_node_that_nobody_announced_fails_at_once_and_the_others_run(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"), ("c2", "n1"))
    failed, other = inspection.inspect_execution(ADMIN, job_id, executor_id).Result
    assert (failed["Status"], failed["Reason"]) == (Status.CREATE_FAILED, Reason.NODE_UNKNOWN)
    assert "nowhere" in failed["E"]
    assert other["Status"] == Status.STARTING
    received = queues.receive(queues.ensure_queue("n1"), 10, 0)
    assert [message.target.container_id for message in received] == ["c2"]


def test_a_node_announced_too_late_stays_unknown_to_this_start(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "late"))
    store.nodes.announce(build_node("late"))
    assert only(job_id, executor_id)["Reason"] == Reason.NODE_UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "status"), [(719, Status.STARTING), (721, Status.CREATE_FAILED)]
)
def test_a_target_is_expired_only_when_no_worker_can_claim_it_any_more(
    job_id: str, clock: Clock, seconds: int, status: Status
) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    clock.now += seconds
    result = only(job_id, executor_id)
    assert (result["Status"], result.get("Reason")) == (
        status,
        Reason.EXPIRED if status == Status.CREATE_FAILED else None,
    )


def test_what_is_stored_wins_over_what_follows_from_nothing(job_id: str, clock: Clock) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, Status.RUNNING, ID="e1")
    clock.now += 100_000
    assert (only(job_id, executor_id)["Status"], only(job_id, executor_id)["ID"]) == (
        "RUNNING",
        "e1",
    )


def test_results_stand_in_the_order_of_the_targets(job_id: str) -> None:
    executor_id = start(job_id, ("c9", "n1"), ("c1", "n1"), ("c5", "n1"))
    write(job_id, executor_id, Status.CREATED, ID="e1")
    answer = inspection.inspect_execution(ADMIN, job_id, executor_id)
    assert [result["ContainerId"] for result in answer.Result] == ["c9", "c1", "c5"]
    assert [target["ContainerId"] for target in answer.Target] == ["c9", "c1", "c5"]
    assert answer.CreateTime == float(executor_id)


def test_a_finished_result_has_the_engines_fields_and_the_outputs_end(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    inspect = build_inspect("e1", "c1full", code=3)
    write(
        job_id, executor_id, Status.FINISHED, ID="e1", Inspect=inspect, Output=b"end", OutputSize=9
    )
    assert only(job_id, executor_id) == {
        **inspect,
        "ContainerId": "c1",
        "NodeId": "n1",
        "Status": Status.FINISHED,
        "Output": "end",
        "OutputSize": 9,
        "OutputTruncated": True,
    }


@pytest.mark.parametrize(
    ("output", "cut", "shown"),
    [
        ("密".encode()[1:] + b"x", True, "x"),
        ("😀".encode()[1:] + b"x", True, "x"),
        ("密".encode()[1:], False, "\ufffd"),
        (b"\xffx", True, "\ufffdx"),
        (b"x\x80", True, "x\ufffd"),
    ],
)
def test_a_character_that_the_cut_went_through_is_not_shown(
    output: bytes, cut: bool, shown: str
) -> None:
    text = _whole_characters(output, cut).decode(errors="replace")
    assert set(text) == set(shown)
    assert text.rstrip("\ufffd") == shown.rstrip("\ufffd")


def test_an_execution_outlives_its_job(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    jobs.delete_job(ADMIN, job_id)
    assert only(job_id, executor_id)["Status"] == Status.STARTING


@pytest.mark.parametrize("executor_id", ["1.000000", "1", "", "١.000000", "1.000000\n", "x" * 5000])
def test_an_unknown_execution_is_told_from_an_unknown_job(job_id: str, executor_id: str) -> None:
    with pytest.raises(ExecutionNotFound):
        inspection.inspect_execution(ADMIN, job_id, executor_id)
    with pytest.raises(JobNotFound):
        inspection.inspect_execution(ADMIN, str(uuid4()), executor_id)


def test_an_execution_is_gone_after_the_retention(job_id: str, clock: Clock) -> None:
    """DynamoDB may have deleted its results and not yet itself."""
    executor_id = start(job_id, ("c1", "n1"))
    clock.now += settings.retention_seconds - 1
    only(job_id, executor_id)
    clock.now += 2
    with pytest.raises(ExecutionNotFound):
        only(job_id, executor_id)


def test_an_answer_counts_what_is_over(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"), ("c2", "n1"), ("c3", "nowhere"))
    write(job_id, executor_id, Status.FINISHED, Inspect={"ExitCode": 0})
    answer = inspection.inspect_execution(ADMIN, job_id, executor_id)
    assert (answer.Total, answer.Succeeded, answer.Failed) == (3, 1, 1)
