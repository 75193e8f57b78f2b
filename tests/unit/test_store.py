"""Conditional writes: who wins, who loses, and what a retry of one's own write is."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import boto3
import pytest
from pynamodb.exceptions import QueryError

from chalicelib import store
from chalicelib.domain.errors import ExecutionNotFound, JobNotFound, NameTaken, TryAgain
from chalicelib.domain.states import Status
from chalicelib.store.executions import Start
from chalicelib.store.models import AuditEntry, Execution, Job, JobName, Result
from tests.support.builders import build_execution, build_job, build_result
from tests.support.job_fields import FIELDS, SECRET

pytestmark = pytest.mark.usefixtures("aws")


def job(job_id: str = "j1", name: str = "n") -> Job:
    return build_job(job_id, Name=name)


def execution(of: Job, executor_id: str) -> Execution:
    made = build_execution(of.JobId, executor_id)
    for name in FIELDS.keys() - {SECRET}:
        setattr(made, name, getattr(of, name))
    return made


def entry() -> AuditEntry:
    return AuditEntry("2026-11-24", uuid4().hex, Action="a", Actor="me", Name="n", ExpiresAt=1)


def create(new: Job) -> None:
    store.jobs.create_job(new, entry())


def edit(job_id: str, change: Callable[[Job], object]) -> Job:
    def changed(stored: Job) -> AuditEntry:
        change(stored)
        return entry()

    return store.jobs.edit_job(job_id, changed)


def delete(job_id: str) -> None:
    store.jobs.delete_job(job_id, lambda stored: entry())


def start(job_id: str, make: Callable[[Job], Execution]) -> tuple[Job, Execution]:
    return store.executions.start_job(job_id, lambda stored: Start(make(stored), [], [], entry()))


def result(status: Status, exec_id: str | None = "e1") -> Result:
    reason = "expired" if status == Status.CREATE_FAILED else None
    return build_result("j1", "1", Status=status, ID=exec_id, Reason=reason)


def test_a_name_belongs_to_one_job_of_its_application() -> None:
    create(job("j1"))
    with pytest.raises(NameTaken):
        create(job("j2"))
    with pytest.raises(JobNotFound):
        store.jobs.get_job("j2")


def test_what_is_refused_leaves_no_entry_in_the_audit() -> None:
    create(job("j1", "one"))
    create(job("j2", "two"))
    with pytest.raises(NameTaken):
        create(job("j3", "one"))
    with pytest.raises(NameTaken):
        edit("j2", lambda stored: setattr(stored, "Name", "one"))
    assert len(list(AuditEntry.scan())) == 2


def test_an_entry_of_the_audit_is_never_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.jobs.create_job.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]
    taken = entry()
    store.jobs.create_job(job("j1", "one"), taken)
    with pytest.raises(TryAgain):
        store.jobs.create_job(job("j2", "two"), taken)
    with pytest.raises(JobNotFound):
        store.jobs.get_job("j2")


def test_each_change_leaves_one_entry_in_the_audit() -> None:
    def entries() -> int:
        return len(list(AuditEntry.scan()))

    create(job())
    assert entries() == 1
    edit("j1", lambda stored: setattr(stored, "Name", "new"))
    assert entries() == 2
    edit("j1", lambda stored: setattr(stored, "Cmd", "false"))
    assert entries() == 3
    start("j1", lambda stored: execution(stored, "1.000000"))
    assert entries() == 4
    delete("j1")
    assert entries() == 5


def test_a_rename_frees_the_old_name_and_takes_the_new() -> None:
    create(job("j1", "old"))
    edit("j1", lambda stored: setattr(stored, "Name", "new"))
    assert [(owner.Name, owner.JobId) for owner in JobName.scan()] == [("new", "j1")]
    create(job("j2", "old"))


def test_a_refused_rename_changes_nothing() -> None:
    create(job("j1", "one"))
    create(job("j2", "two"))
    with pytest.raises(NameTaken):
        edit("j1", lambda stored: setattr(stored, "Name", "two"))
    assert store.jobs.get_job("j1").Name == "one"
    assert {owner.Name: owner.JobId for owner in JobName.scan()} == {"one": "j1", "two": "j2"}


def test_an_edit_that_lost_a_race_sees_the_other_and_goes_on() -> None:
    create(job())
    seen = []

    def change(stored: Job) -> None:
        seen.append(stored.Cmd)
        if len(seen) == 1:
            edit("j1", lambda other: setattr(other, "Cmd", "other"))
        stored.User = "me"

    edit("j1", change)
    assert seen == ["true", "other"]
    assert (store.jobs.get_job("j1").Cmd, store.jobs.get_job("j1").User) == ("other", "me")


@pytest.mark.parametrize("emptied", [False, True])
def test_an_empty_text_is_absent(emptied: bool) -> None:
    create(job())
    if emptied:
        edit("j1", lambda stored: setattr(stored, "User", "me"))
        edit("j1", lambda stored: setattr(stored, "User", ""))
    stored = store.jobs.get_job("j1")
    assert (stored.ServiceName, stored.User) == ("", "")
    client = boto3.client("dynamodb")
    item = client.get_item(TableName=Job.Meta.table_name, Key={"JobId": {"S": "j1"}})["Item"]
    assert not {"ServiceName", "User"} & item.keys()


def test_a_deleted_job_leaves_its_name_and_its_executions() -> None:
    create(job())
    start("j1", lambda stored: execution(stored, "1.000000"))
    delete("j1")
    create(job("j2"))
    assert store.executions.get_execution("j1", "1.000000").Cmd == "true"
    for missing in (("j1", "2.000000"), ("j2", "1.000000")):
        with pytest.raises(ExecutionNotFound):
            store.executions.get_execution(*missing)


def test_a_taken_executor_id_is_chosen_anew() -> None:
    create(job())
    start("j1", lambda stored: execution(stored, "1.000000"))
    ids = iter(["1.000000", "1.000001"])
    started, made = start("j1", lambda stored: execution(stored, next(ids)))
    assert made.ExecutorId == "1.000001"
    assert started.Executors == store.jobs.get_job("j1").Executors == ["1.000000", "1.000001"]


def test_a_start_runs_the_job_as_it_stands_when_it_is_stored() -> None:
    create(job())
    edits = []

    def make(stored: Job) -> Execution:
        if not edits:
            edits.append(edit("j1", lambda other: setattr(other, "Cmd", "edited")))
        return execution(stored, "1.000000")

    start("j1", make)
    assert store.executions.get_execution("j1", "1.000000").Cmd == "edited"


def ids(numbers: range) -> list[str]:
    return [f"{number:05}.000000" for number in numbers]


def test_a_job_lists_its_newest_starts_and_never_more_than_150() -> None:
    starts = ids(range(210))
    create(build_job("j1", Executors=starts[:140]))
    for index in range(140, 210):
        start("j1", lambda read, one=starts[index]: execution(read, one))
        listed = store.jobs.get_job("j1").Executors
        assert listed == starts[: index + 1][-len(listed) :]
        assert 100 <= len(listed) <= 150


def test_a_start_between_read_and_cut_is_not_lost() -> None:
    stored = job()
    stored.Executors = ids(range(150))
    create(stored)
    others = []

    def make(read: Job) -> Execution:
        if not others:
            others.append(start("j1", lambda other: execution(other, "00150.000000")))
        return execution(read, "00151.000000")

    start("j1", make)
    assert store.jobs.get_job("j1").Executors == ids(range(51, 152))


def test_an_append_to_a_list_that_is_full_by_now_becomes_a_cut() -> None:
    stored = job()
    stored.Executors = ids(range(149))
    create(stored)
    others = []

    def make(read: Job) -> Execution:
        if not others:
            others.append(start("j1", lambda other: execution(other, "00149.000000")))
        return execution(read, "00150.000000")

    start("j1", make)
    assert store.jobs.get_job("j1").Executors == ids(range(51, 151))


def test_the_second_claim_loses_and_a_retried_one_does_not() -> None:
    assert store.results.add_result(result(Status.CREATED, "e1"))
    assert store.results.add_result(result(Status.CREATED, "e1"))
    assert not store.results.add_result(result(Status.CREATED, "e2"))
    assert not store.results.add_result(result(Status.CREATE_FAILED, None))


def test_only_the_claimed_exec_moves_a_result() -> None:
    store.results.add_result(result(Status.CREATED, "e1"))
    assert not store.results.move_result(result(Status.FINISHED, "e2"))
    assert store.results.move_result(result(Status.RUNNING, "e1"))
    assert store.results.move_result(result(Status.FINISHED, "e1"))


@pytest.mark.parametrize("end", [Status.FINISHED, Status.RUNNING_FAILED])
def test_an_end_is_final(end: Status) -> None:
    store.results.add_result(result(Status.CREATED))
    assert store.results.move_result(result(end))
    for status in (Status.RUNNING, Status.FINISHED, Status.RUNNING_FAILED):
        assert not store.results.move_result(result(status))
    assert not store.results.add_result(result(Status.CREATED, "e2"))


def test_the_same_name_is_free_in_another_application() -> None:
    create(job("j1"))
    other = job("j2")
    other.AppName = "b"
    create(other)
    assert [found.JobId for found in store.jobs.list_jobs(None)] == ["j1", "j2"]
    assert [found.JobId for found in store.jobs.list_jobs("b")] == ["j2"]


def test_a_name_too_long_for_a_key_is_not_looked_for() -> None:
    Job.delete_table()
    assert store.jobs.list_jobs("密" * 683) == []
    with pytest.raises(QueryError):
        store.jobs.list_jobs("密" * 682)


def test_a_name_that_goes_round_comes_home() -> None:
    create(job("j1", "one"))
    for name in ("two", "one"):
        edit("j1", lambda stored, name=name: setattr(stored, "Name", name))
    assert [(owner.Name, owner.JobId) for owner in JobName.scan()] == [("one", "j1")]


def test_an_edit_that_keeps_the_name_keeps_its_owner_and_the_starts() -> None:
    create(job())
    start("j1", lambda stored: execution(stored, "1.000000"))
    edit("j1", lambda stored: setattr(stored, "Cmd", "false"))
    assert (store.jobs.get_job("j1").Cmd, store.jobs.get_job("j1").Executors) == (
        "false",
        ["1.000000"],
    )
    with pytest.raises(NameTaken):
        create(job("j2"))


def test_an_edit_may_take_the_last_secret_away() -> None:
    first = job()
    first.Sealed = b"sealed"
    create(first)
    assert store.jobs.get_job("j1").Sealed == b"sealed"
    edit("j1", lambda stored: setattr(stored, "Sealed", None))
    assert store.jobs.get_job("j1").Sealed is None


def test_two_renames_to_one_name_have_one_winner() -> None:
    create(job("j1", "one"))
    create(job("j2", "two"))

    def rename(stored: Job) -> None:
        if store.jobs.list_jobs("a")[0].Name != "new":
            edit("j2", lambda other: setattr(other, "Name", "new"))
        stored.Name = "new"

    with pytest.raises(NameTaken):
        edit("j1", rename)
    assert {owner.Name: owner.JobId for owner in JobName.scan()} == {"one": "j1", "new": "j2"}


def test_a_rename_that_another_did_before_is_no_clash_of_names() -> None:
    create(job("j1", "old"))
    renames = []

    def rename(stored: Job) -> None:
        if not renames:
            renames.append(edit("j1", lambda other: setattr(other, "Name", "new")))
        stored.Name = "new"

    edit("j1", rename)
    assert store.jobs.get_job("j1").Revision == 3
    assert {owner.Name: owner.JobId for owner in JobName.scan()} == {"new": "j1"}


@pytest.mark.parametrize("act", [lambda gone: delete(gone), lambda gone: edit(gone, print)])
def test_what_is_not_there_is_neither_deleted_nor_edited(act: Any) -> None:
    with pytest.raises(JobNotFound):
        act("j1")
    assert list(AuditEntry.scan()) == []


def test_a_job_deleted_while_it_is_edited_stays_deleted() -> None:
    create(job())
    with pytest.raises(JobNotFound):
        edit("j1", lambda stored: delete("j1"))
    assert list(JobName.scan()) == []


def test_a_job_deleted_while_it_is_started_is_not_started() -> None:
    create(job())

    def make(stored: Job) -> Execution:
        delete("j1")
        return execution(stored, "1.000000")

    with pytest.raises(JobNotFound):
        start("j1", make)
    assert list(Execution.scan()) == []


def test_a_race_that_is_never_won_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.jobs.edit_job.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]
    create(job())
    attempts = []

    def outrun(stored: Job) -> None:
        attempts.append(stored.Revision)
        Job("j1").update([Job.Revision.add(1)])

    with pytest.raises(TryAgain):
        edit("j1", outrun)
    assert len(attempts) == 60


def test_a_failed_create_stored_again_counts_as_ours() -> None:
    failed = result(Status.CREATE_FAILED, None)
    assert store.results.add_result(failed)
    assert store.results.add_result(failed)
    assert not store.results.add_result(result(Status.CREATED, "e1"))


@pytest.mark.parametrize("name", ["EndTime", "Reason"])
def test_another_failure_does_not_replace_the_first(name: str) -> None:
    first, second = (result(Status.CREATE_FAILED, None) for _ in range(2))
    for failure in (first, second):
        failure.EndTime = 5.25
    setattr(second, name, {"EndTime": 6.5, "Reason": "engine_error"}[name])
    assert store.results.add_result(first)
    assert not store.results.add_result(second)
    assert store.results.add_result(first)


def test_a_claim_does_not_undo_what_came_after_it() -> None:
    store.results.add_result(result(Status.CREATED))
    store.results.move_result(result(Status.RUNNING))
    assert not store.results.add_result(result(Status.CREATED))
    found = store.results.get_result("j1", "1", 0, "c1")
    assert found
    assert found.Status == Status.RUNNING


def test_a_result_that_is_not_there_does_not_move() -> None:
    assert not store.results.move_result(result(Status.RUNNING))
    assert store.results.get_results("j1", "1", [0]) == {}


def test_a_failed_create_never_moves() -> None:
    store.results.add_result(result(Status.CREATE_FAILED, None))
    for status in (Status.RUNNING, Status.FINISHED, Status.RUNNING_FAILED):
        assert not store.results.move_result(result(status))


def stored_list(*executor_ids: str) -> None:
    """A job j1 that has these starts in its list."""
    made = job()
    made.Executors = list(executor_ids)
    create(made)


def numbered(first: int, count: int) -> list[str]:
    return [f"{number}.000000" for number in range(first, first + count)]


def test_the_first_start_cuts_the_long_list_of_a_former_version() -> None:
    listed = numbered(1_000_000_000, 10_049)
    stored_list(*listed)
    answered, _ = start("j1", lambda stored: execution(stored, "1000010049.000000"))
    newest = [*listed[-99:], "1000010049.000000"]
    assert store.jobs.get_job("j1").Executors == newest
    assert answered.Executors[-100:] == newest


def test_a_cut_loses_no_start_between_though_the_first_one_stayed() -> None:
    """The oldest of the newest 100 is the first of the list, before the cut and after it."""
    stored_list("1051.000000", *numbered(1000, 51), *numbered(1052, 98))
    lengths = []

    def make(stored: Job) -> Execution:
        lengths.append(len(stored.Executors))
        if len(lengths) == 1:
            for other in numbered(1200, 51):
                start("j1", lambda read, other=other: execution(read, other))  # type: ignore[misc]
        return execution(stored, "1300.000000")

    start("j1", make)
    assert lengths == [150, 150]
    kept = [*numbered(1102, 48), *numbered(1200, 51), "1300.000000"]
    assert store.jobs.get_job("j1").Executors == kept
