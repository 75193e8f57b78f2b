"""Inspecting an execution: results, stored or not, and logs."""

from typing import Any
from uuid import uuid4

import pytest

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.errors import ContainerNotFound, ExecutionNotFound, JobNotFound
from chalicelib.domain.states import Reason, Status
from chalicelib.services import inspection, jobs
from chalicelib.services.inspection import _whole_characters
from tests.support.builders import build_node, build_result
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
    inspect = {"ID": "e1", "ExitCode": 3, "Running": False, "ContainerID": "c1full"}
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


def test_a_log_is_named_after_container_and_start(job_id: str, clock: Clock) -> None:
    clock.now = 1_496_287_694.460088
    log = inspection.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c1")
    assert log.filename == "job-container-c1-2017-06-01-03:28:14.log"
    assert (log.link, log.content) == ("", b"")


def test_the_log_of_a_target_that_failed_before_it_ran_is_its_error(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"))
    log = inspection.read_log(ADMIN, job_id, executor_id, "c1")
    assert not log.link
    assert log.content == only(job_id, executor_id)["E"].encode()


def test_the_log_of_no_target_is_not_found(job_id: str) -> None:
    with pytest.raises(ContainerNotFound):
        inspection.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c2")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (Status.CREATED, {}),
        (Status.RUNNING, {}),
        # More than who adopted it knew of.
        (Status.FINISHED, {"OutputIncomplete": True, "OutputSize": 0}),
    ],
)
def test_a_command_has_a_log_once_some_is_stored(
    job_id: str, status: Status, fields: dict[str, Any]
) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, status, ID="e1", **fields)
    assert inspection.read_log(ADMIN, job_id, executor_id, "c1").content == b""
    put_log(job_id, executor_id, b"so far")
    assert inspection.read_log(ADMIN, job_id, executor_id, "c1").content == b"so far"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("more", "is_linked"), [(0, False), (1, True)])
def test_a_long_log_is_a_link(job_id: str, known: bool, more: int, is_linked: bool) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    size = inspection.DIRECT_BYTES + more
    fields = {"OutputSize": size} if known else {}
    write(job_id, executor_id, Status.FINISHED if known else Status.RUNNING, ID="e1", **fields)
    key = put_log(job_id, executor_id, b"\0" * size)
    log = inspection.read_log(ADMIN, job_id, executor_id, "c1")
    assert key in log.link
    assert log.content == (None if is_linked else b"\0" * size)


@pytest.mark.parametrize("output", [b"hi\n", b"\xff\0"])
def test_a_short_log_comes_from_the_result(job_id: str, output: bytes) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    fields = {"OutputSize": len(output), "Output": output}
    write(job_id, executor_id, Status.FINISHED, ID="e1", **fields)
    put_log(job_id, executor_id, b"what was there while it ran")
    assert inspection.read_log(ADMIN, job_id, executor_id, "c1").content == output


def test_a_log_that_is_gone_is_not_told_to_be_empty(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, Status.FINISHED, ID="e1", OutputSize=7)
    assert inspection.read_log(ADMIN, job_id, executor_id, "c1").content is None


def put_log(job_id: str, executor_id: str, content: bytes) -> str:
    key = logs.log_key(job_id, executor_id, "c1")
    client("s3").put_object(Bucket=settings.log_bucket, Key=key, Body=content)
    return key


def test_an_answer_counts_what_is_over(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"), ("c2", "n1"), ("c3", "nowhere"))
    write(job_id, executor_id, Status.FINISHED, Inspect={"ExitCode": 0})
    answer = inspection.inspect_execution(ADMIN, job_id, executor_id)
    assert (answer.Total, answer.Succeeded, answer.Failed) == (3, 1, 1)
