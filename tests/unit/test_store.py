"""Conditional writes: who wins, who loses, and what a retry of one's own write is."""

import time

import pytest

from chalicelib import store
from chalicelib.errors import ExecutionNotFound, JobNotFound, NameTaken
from chalicelib.models import Execution, Job, JobName, Result
from chalicelib.states import Status

pytestmark = pytest.mark.usefixtures("aws")


def job(job_id: str = "j1", name: str = "n") -> Job:
    return Job(
        job_id,
        Revision=1,
        Executors=[],
        AppName="a",
        ServiceName="",
        Name=name,
        Cmd="true",
        Privileged=False,
        User="",
        Env=[],
    )


def execution(of: Job, executor_id: str) -> Execution:
    made = Execution(of.JobId, executor_id, Target=[], UnknownNodes=[], ExpiresAt=1)
    for name in ("AppName", "ServiceName", "Name", "Cmd", "Privileged", "User", "Env"):
        setattr(made, name, getattr(of, name))
    return made


def result(status: Status, exec_id: str | None = "e1") -> Result:
    return Result("j1/1", "c1", NodeId="n1", Status=status, ID=exec_id, ExpiresAt=1)


def test_a_name_belongs_to_one_job_of_its_application() -> None:
    store.create_job(job("j1"))
    with pytest.raises(NameTaken):
        store.create_job(job("j2"))
    with pytest.raises(JobNotFound):
        store.get_job("j2")


def test_a_rename_frees_the_old_name_and_takes_the_new() -> None:
    store.create_job(job("j1", "old"))
    store.edit_job("j1", lambda stored: setattr(stored, "Name", "new"))
    assert [(owner.Name, owner.JobId) for owner in JobName.scan()] == [("new", "j1")]
    store.create_job(job("j2", "old"))


def test_a_refused_rename_changes_nothing() -> None:
    store.create_job(job("j1", "one"))
    store.create_job(job("j2", "two"))
    with pytest.raises(NameTaken):
        store.edit_job("j1", lambda stored: setattr(stored, "Name", "two"))
    assert store.get_job("j1").Name == "one"
    assert {owner.Name: owner.JobId for owner in JobName.scan()} == {"one": "j1", "two": "j2"}


def test_an_edit_that_lost_a_race_sees_the_other_and_goes_on() -> None:
    store.create_job(job())
    seen = []

    def edit(stored: Job) -> None:
        seen.append(stored.Cmd)
        if len(seen) == 1:
            store.edit_job("j1", lambda other: setattr(other, "Cmd", "other"))
        stored.User = "me"

    store.edit_job("j1", edit)
    assert seen == ["true", "other"]
    assert (store.get_job("j1").Cmd, store.get_job("j1").User) == ("other", "me")


def test_a_deleted_job_leaves_its_name_and_its_executions() -> None:
    store.create_job(job())
    store.start_job("j1", lambda stored: execution(stored, "1.000000"), oldest=0)
    store.delete_job("j1")
    store.create_job(job("j2"))
    assert store.get_execution("j1", "1.000000").Cmd == "true"
    with pytest.raises(JobNotFound):
        store.get_execution("j1", "2.000000")
    with pytest.raises(ExecutionNotFound):
        store.get_execution("j2", "1.000000")


def test_a_taken_executor_id_is_chosen_anew() -> None:
    store.create_job(job())
    store.start_job("j1", lambda stored: execution(stored, "1.000000"), oldest=0)
    ids = iter(["1.000000", "1.000001"])
    started, made = store.start_job("j1", lambda stored: execution(stored, next(ids)), oldest=0)
    assert made.ExecutorId == "1.000001"
    assert started.Executors == store.get_job("j1").Executors == ["1.000000", "1.000001"]


def test_a_start_runs_the_job_as_it_stands_when_it_is_stored() -> None:
    store.create_job(job())
    edits = []

    def make(stored: Job) -> Execution:
        if not edits:
            edits.append(store.edit_job("j1", lambda other: setattr(other, "Cmd", "edited")))
        return execution(stored, "1.000000")

    store.start_job("j1", make, oldest=0)
    assert store.get_execution("j1", "1.000000").Cmd == "edited"


def test_expired_starts_drop_out_of_the_list_in_bulk() -> None:
    long_ago = [f"{number}.000000" for number in range(60)]
    stored = job()
    stored.Executors = long_ago
    store.create_job(stored)
    now = f"{time.time():.6f}"
    store.start_job("j1", lambda read: execution(read, now), oldest=1000)
    assert store.get_job("j1").Executors == [*long_ago[50:], now]


def test_the_second_claim_loses_and_a_retried_one_does_not() -> None:
    assert store.add_result(result(Status.CREATED, "e1"))
    assert store.add_result(result(Status.CREATED, "e1"))
    assert not store.add_result(result(Status.CREATED, "e2"))
    assert not store.add_result(result(Status.CREATE_FAILED, None))


def test_only_the_claimed_exec_moves_a_result() -> None:
    store.add_result(result(Status.CREATED, "e1"))
    assert not store.move_result(result(Status.FINISHED, "e2"))
    assert store.move_result(result(Status.RUNNING, "e1"))
    assert store.move_result(result(Status.FINISHED, "e1"))


@pytest.mark.parametrize("end", [Status.FINISHED, Status.RUNNING_FAILED])
def test_an_end_is_final(end: Status) -> None:
    store.add_result(result(Status.CREATED))
    assert store.move_result(result(end))
    for status in (Status.RUNNING, Status.FINISHED, Status.RUNNING_FAILED):
        assert not store.move_result(result(status))
    assert not store.add_result(result(Status.CREATED, "e2"))
