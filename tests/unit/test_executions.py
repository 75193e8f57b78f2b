"""Starts: their ids, their messages, and what follows for a target without a result."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.errors import (
    ContainerNotFound,
    ExecutionNotFound,
    InvalidRequest,
    JobNotFound,
)
from chalicelib.domain.states import Reason, Status
from chalicelib.schemas import JobRequest, StartRequest, Target
from chalicelib.services import executions, jobs
from chalicelib.services.executions import _next_executor_id, _whole_characters
from chalicelib.store.models import Job, Node, Result
from tests.unit.callers import ADMIN, caller

NOW = 1_496_287_694.460088


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands; the tests move it."""
    clock = SimpleNamespace(now=NOW)
    clock.time = lambda: clock.now
    for module in ("executions", "jobs"):
        monkeypatch.setattr(f"chalicelib.services.{module}.time", clock)
    return clock


@pytest.fixture
def job_id(aws: None, clock: Any) -> str:
    """A job, and a worker that serves node n1."""
    url = queues.ensure_queue("n1")
    store.nodes.announce(Node("n1", Hostname="h", QueueUrl=url, Worker="w", Heartbeat=NOW))
    return jobs.create_job(ADMIN, JobRequest(AppName="a", Name="n", Cmd="true")).JobId


def start(job_id: str, *targets: tuple[str, str]) -> str:
    request = StartRequest([Target(container, node) for container, node in targets])
    return executions.start(ADMIN, job_id, request).Executors[-1]


def write(job_id: str, executor_id: str, status: Status, **fields: Any) -> None:
    """What a worker stores for the container c1."""
    key = store.results.result_key(job_id, executor_id)
    Result(key, "c1", NodeId="n1", Status=status, ExpiresAt=1, **fields).save()


def only(job_id: str, executor_id: str) -> dict[str, Any]:
    (result,) = executions.inspect(ADMIN, job_id, executor_id).Result
    return result


def job_with(*executors: str) -> Job:
    return Job("j", Executors=list(executors))


def test_an_id_is_the_start_in_seconds_with_six_decimals() -> None:
    assert _next_executor_id(job_with(), NOW) == "1496287694.460088"
    assert _next_executor_id(job_with(), 7.0) == "7.000000"


def test_a_start_in_the_same_microsecond_takes_the_next() -> None:
    assert _next_executor_id(job_with("1496287694.460088"), NOW) == "1496287694.460089"


def test_a_clock_that_went_back_does_not_matter() -> None:
    assert _next_executor_id(job_with("2000.999999", "3.000000"), 1.0) == "2001.000000"


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=12))
def test_ids_grow_whatever_the_clocks_say(clocks: list[float]) -> None:
    ids: list[str] = []
    for now in clocks:
        ids.append(_next_executor_id(job_with(*ids), now))
        assert executions._EXECUTOR_ID.fullmatch(ids[-1])
    numbers = [int(made.replace(".", "")) for made in ids]
    assert numbers == sorted(set(numbers))


def test_a_start_is_announced_to_its_node(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    (received,) = queues.receive(queues.ensure_queue("n1"), 10, 0)
    assert received.target == queues.TargetMessage(job_id, executor_id, "c1", "a")
    assert only(job_id, executor_id) == {
        "ContainerId": "c1",
        "NodeId": "n1",
        "Status": Status.STARTING,
    }


def test_a_node_that_nobody_announced_fails_at_once_and_the_others_run(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"), ("c2", "n1"))
    failed, other = executions.inspect(ADMIN, job_id, executor_id).Result
    assert (failed["Status"], failed["Reason"]) == (Status.CREATE_FAILED, Reason.NODE_UNKNOWN)
    assert "nowhere" in failed["E"]
    assert other["Status"] == Status.STARTING
    received = queues.receive(queues.ensure_queue("n1"), 10, 0)
    assert [message.target.container_id for message in received] == ["c2"]


def test_a_node_announced_too_late_stays_unknown_to_this_start(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "late"))
    store.nodes.announce(Node("late", Hostname="h", QueueUrl="q", Worker="w", Heartbeat=NOW))
    assert only(job_id, executor_id)["Reason"] == Reason.NODE_UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "status"), [(719, Status.STARTING), (721, Status.CREATE_FAILED)]
)
def test_a_target_is_expired_only_when_no_worker_can_claim_it_any_more(
    job_id: str, clock: Any, seconds: int, status: Status
) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    clock.now += seconds
    result = only(job_id, executor_id)
    assert (result["Status"], result.get("Reason")) == (
        status,
        Reason.EXPIRED if status == Status.CREATE_FAILED else None,
    )


def test_what_is_stored_wins_over_what_follows_from_nothing(job_id: str, clock: Any) -> None:
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
    answer = executions.inspect(ADMIN, job_id, executor_id)
    assert [result["ContainerId"] for result in answer.Result] == ["c9", "c1", "c5"]
    assert [target["ContainerId"] for target in answer.Target] == ["c9", "c1", "c5"]
    assert answer.CreateTime == float(executor_id)


def test_a_finished_result_has_the_engines_fields_and_the_end_of_the_output(job_id: str) -> None:
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
        executions.inspect(ADMIN, job_id, executor_id)
    with pytest.raises(JobNotFound):
        executions.inspect(ADMIN, str(uuid4()), executor_id)


def test_the_answer_to_a_start_ends_with_it(job_id: str) -> None:
    first, second = start(job_id, ("c1", "n1")), start(job_id, ("c1", "n1"))
    assert jobs.get_job(ADMIN, job_id).Executors == [first, second]


def test_starts_older_than_the_retention_are_not_listed(job_id: str, clock: Any) -> None:
    start(job_id, ("c1", "n1"))
    clock.now += settings.retention + 1
    second = start(job_id, ("c1", "n1"))
    assert jobs.get_job(ADMIN, job_id).Executors == [second]


def test_an_execution_is_gone_after_the_retention(job_id: str, clock: Any) -> None:
    """DynamoDB may have deleted its results and not yet itself."""
    executor_id = start(job_id, ("c1", "n1"))
    clock.now += settings.retention - 1
    only(job_id, executor_id)
    clock.now += 2
    with pytest.raises(ExecutionNotFound):
        only(job_id, executor_id)


def test_it_is_stored_whether_who_started_it_may_run_as_root(job_id: str) -> None:
    request = StartRequest([Target("c1", "n1")])
    for who, may in ((ADMIN, True), (caller(may_run_as_root=False), False)):
        executor_id = executions.start(who, job_id, request).Executors[-1]
        assert store.executions.get_execution(job_id, executor_id).MayRunAsRoot is may


def test_a_log_is_named_after_container_and_start(job_id: str) -> None:
    log = executions.log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c1")
    assert log.filename == "job-container-c1-2017-06-01-03:28:14.log"
    assert (log.link, log.content) == ("", b"")


def test_the_log_of_a_target_that_failed_before_it_ran_is_its_error(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"))
    log = executions.log(ADMIN, job_id, executor_id, "c1")
    assert not log.link
    assert log.content == only(job_id, executor_id)["E"].encode()


def test_the_log_of_no_target_is_not_found(job_id: str) -> None:
    with pytest.raises(ContainerNotFound):
        executions.log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c2")


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
    assert executions.log(ADMIN, job_id, executor_id, "c1").content == b""
    put_log(job_id, executor_id, b"so far")
    assert executions.log(ADMIN, job_id, executor_id, "c1").content == b"so far"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("more", "is_linked"), [(0, False), (1, True)])
def test_a_long_log_is_a_link(job_id: str, known: bool, more: int, is_linked: bool) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    size = executions.DIRECT_BYTES + more
    fields = {"OutputSize": size} if known else {}
    write(job_id, executor_id, Status.FINISHED if known else Status.RUNNING, ID="e1", **fields)
    key = put_log(job_id, executor_id, b"\0" * size)
    log = executions.log(ADMIN, job_id, executor_id, "c1")
    assert key in log.link
    assert log.content == (None if is_linked else b"\0" * size)


def test_a_log_that_is_gone_is_not_told_to_be_empty(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, Status.FINISHED, ID="e1", OutputSize=7)
    assert executions.log(ADMIN, job_id, executor_id, "c1").content is None


def put_log(job_id: str, executor_id: str, content: bytes) -> str:
    key = logs.log_key(job_id, executor_id, "c1")
    client("s3").put_object(Bucket=settings.log_bucket, Key=key, Body=content)
    return key


def test_a_start_whose_messages_sqs_does_not_take_is_accepted_all_the_same(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upkeep sends them; an error would make the user start it a second time."""

    def refuse(messages: Any) -> None:
        raise queues.SendFailed

    monkeypatch.setattr(queues, "send", refuse)
    executor_id = start(job_id, ("c1", "n1"))
    assert only(job_id, executor_id)["Status"] == Status.STARTING
    assert list(store.executions.open_executions()) == [(job_id, executor_id)]


def test_an_answer_counts_what_is_over(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"), ("c2", "n1"), ("c3", "nowhere"))
    write(job_id, executor_id, Status.FINISHED, Inspect={"ExitCode": 0})
    answer = executions.inspect(ADMIN, job_id, executor_id)
    assert (answer.Total, answer.Succeeded, answer.Failed) == (3, 1, 1)


def test_a_job_whose_command_does_not_split_any_more_is_refused(job_id: str) -> None:
    job = store.jobs.get_job(job_id)
    job.update([Job.Cmd.set("echo #'\nhi'")])
    with pytest.raises(InvalidRequest, match="Cmd does not split"):
        start(job_id, ("c1", "n1"))
    assert store.jobs.get_job(job_id).Executors == []
