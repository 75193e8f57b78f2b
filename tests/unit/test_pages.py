"""Lists that are read in pages: jobs, and the history of one."""

from itertools import chain
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.domain.access import Caller, Role
from chalicelib.domain.ends import Counted
from chalicelib.domain.errors import InvalidRequest, JobNotFound
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.history import HistoryPage, HistoryRequest
from chalicelib.schemas.jobs import JobRequest, JobsRequest
from chalicelib.schemas.pages import encode_next
from chalicelib.schemas.parsing import parse_query
from chalicelib.services import history, jobs, starts
from chalicelib.store.models import Execution, Job
from tests.support.builders import serve_node
from tests.unit.callers import ADMIN

pytestmark = pytest.mark.usefixtures("aws")

OF_A_AND_C = Caller(name="ci", token_id="t", role=Role.VIEWER, apps=("c", "a"))
OF_B = Caller(name="ci", token_id="t", role=Role.ADMIN, apps=("b",))
START = StartRequest([Target("c1", "nowhere")])


def create(app: str, name: str) -> str:
    request = JobRequest(AppName=app, Name=name, Cmd="true")
    return jobs.create_job(ADMIN, request).JobId


def pages(caller: Caller, limit: int, **query: Any) -> list[list[str]]:
    """The AppName and Name of each job, page by page."""
    found, following = [], None
    while True:
        page = jobs.list_page(caller, JobsRequest(Limit=limit, Next=following, **query))
        found.append([f"{job.AppName}{job.Name}" for job in page.Jobs])
        following = page.Next
        if following is None:
            return found


@pytest.fixture
def seven(aws: None) -> None:
    for name in ("b2", "a1", "c1", "a3", "b1", "a2", "c2"):
        create(*name)


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("limit", range(1, 9))
def test_the_pages_hold_each_job_once_in_the_order_of_names(limit: int) -> None:
    found = pages(ADMIN, limit)
    assert all(len(page) <= limit for page in found)
    names = [*chain(*found)]
    assert sorted(names) == ["a1", "a2", "a3", "b1", "b2", "c1", "c2"]
    for app in "abc":
        assert [name for name in names if name[0] == app] == sorted(
            name for name in names if name[0] == app
        )


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("limit", range(1, 9))
def test_a_bound_token_pages_through_its_applications(limit: int) -> None:
    assert [*chain(*pages(OF_A_AND_C, limit))] == ["a1", "a2", "a3", "c1", "c2"]
    assert [*chain(*pages(OF_A_AND_C, limit, AppName=" c "))] == ["c1", "c2"]
    for nothing in ("b", " "):
        assert pages(OF_A_AND_C, limit, AppName=nothing) == [[]]


@pytest.mark.usefixtures("seven")
def test_a_job_that_moves_away_is_not_shown_to_those_it_left() -> None:
    page = jobs.list_page(OF_A_AND_C, JobsRequest(Limit=1))
    moved = store.jobs.list_jobs("a")[1]
    jobs.edit_job(ADMIN, moved.JobId, JobRequest(AppName="b", Name="9", Cmd="true"))
    rest = jobs.list_page(OF_A_AND_C, JobsRequest(Limit=9, Next=page.Next)).Jobs
    assert [job.Name for job in rest] == ["3", "1", "2"]


def place(app: str, name: str, job_id: str) -> Job:
    """What the index has of a job; it may be some moments old."""
    return Job(job_id, AppName=app, Name=name)


def test_a_job_that_left_an_application_is_not_listed_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The index may have it for a moment; the caller asks for one application, and may see both."""
    moved, stays = create("c", "1"), create("a", "2")
    late = [place("a", "1", moved), place("a", "2", stays)]
    monkeypatch.setattr(Job.by_app, "query", lambda app, **read: iter(late if app == "a" else []))
    for caller in (ADMIN, OF_A_AND_C):
        page = jobs.list_page(caller, JobsRequest(Limit=9, AppName="a"))
        assert [job.JobId for job in page.Jobs] == [stays]


def test_a_job_that_moves_while_the_index_is_read_is_listed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = create("b", "1")
    late = [place("a", "1", moved), place("b", "1", moved)]
    monkeypatch.setattr(Job.by_app, "scan", lambda **read: iter(late))
    page = jobs.list_page(ADMIN, JobsRequest(Limit=9))
    assert [job.JobId for job in page.Jobs] == [moved]


HOSTILE = [
    r'["\ud800","b","c"]',
    '["","b","c"]',
    '["a","b",1]',
    '["a",["b"],"c"]',
    '{"a":"b"}',
    "[" * 3000,
    '["a","b","c","d"]',
    '["a","b","%s"]' % ("x" * 1025),
]


def test_no_batch_reads_a_job_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB refuses a batch that has a key twice. The index has one if a job moves meanwhile."""
    job_id = create("a", "1")
    late = [place("a", "0", job_id), place("a", "1", job_id)]
    monkeypatch.setattr(Job.by_app, "query", lambda app, **read: iter(late))
    spy = create_autospec(Job.batch_get, side_effect=Job.batch_get)
    monkeypatch.setattr(Job, "batch_get", spy)
    assert [job.Name for job in jobs.list_jobs(ADMIN, "a")] == ["1"]
    assert [job.Name for job in jobs.list_page(ADMIN, JobsRequest(AppName="a")).Jobs] == ["1"]
    assert [call.args for call in spy.call_args_list] == [([job_id],), ([job_id],)]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_next_that_holds_no_key_is_refused(hostile: str) -> None:
    with pytest.raises(InvalidRequest, match="Next must be exactly"):
        parse_query({"Next": hostile.encode().hex()}, JobsRequest)


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("forged", [("b", "0", "x"), ("a", "\0", "x"), ("zz", "1", "x")])
def test_a_forged_next_shows_nothing_of_other_applications(forged: tuple[str, str, str]) -> None:
    for app in (None, "a", "b"):
        query = JobsRequest(Limit=9, AppName=app, Next=encode_next(forged))
        assert {job.AppName for job in jobs.list_page(OF_A_AND_C, query).Jobs} <= {"a", "c"}


@pytest.mark.parametrize("wrong", ["x", "00", "5b5d", "5b2261225d", "1" * 9999])
def test_a_next_that_no_page_has_is_refused(wrong: str) -> None:
    for shape in (JobsRequest, HistoryRequest):
        with pytest.raises(InvalidRequest, match="Next must be exactly"):
            parse_query({"Next": wrong}, shape)


@pytest.mark.parametrize("wrong", ["0", "1001", "-1", "x", "1.5"])
def test_a_limit_has_bounds(wrong: str) -> None:
    for shape in (JobsRequest, HistoryRequest):
        with pytest.raises(InvalidRequest, match="Limit"):
            parse_query({"Limit": wrong}, shape)


def executors(page: HistoryPage) -> list[str]:
    return [entry.ExecutorId for entry in page.Executions]


def test_the_history_has_all_starts_the_newest_first() -> None:
    job_id = create("a", "n")
    started = [starts.start_job(ADMIN, job_id, START).Executors[-1] for _ in range(25)]
    found, following = [], None
    for size in (10, 10, 5):
        page = history.read_history(ADMIN, job_id, HistoryRequest(Limit=10, Next=following))
        assert len(page.Executions) == size
        found += executors(page)
        following = page.Next
    assert following is None
    assert found == started[::-1]


def test_an_execution_that_no_node_can_run_is_over_at_once() -> None:
    job_id = create("a", "n")
    executor_id = starts.start_job(ADMIN, job_id, START).Executors[-1]
    (entry,) = history.read_history(ADMIN, job_id, HistoryRequest()).Executions
    assert (entry.Succeeded, entry.Failed, entry.EndTime) == (0, 1, float(executor_id))
    assert list(store.executions.list_due(float(executor_id) + 10**6)) == []


def test_an_entry_says_who_started_it_and_counts_when_it_is_over() -> None:
    serve_node("nowhere")
    job_id = create("a", "n")
    executor_id = starts.start_job(ADMIN, job_id, START).Executors[-1]
    (entry,) = history.read_history(ADMIN, job_id, HistoryRequest()).Executions
    assert (entry.By, entry.Total) == (ADMIN.name, 1)
    assert entry.CreateTime == float(executor_id)
    assert (entry.Succeeded, entry.Failed, entry.EndTime) == (None, None, None)
    counted = Counted(failed=frozenset({0}), end_time=5.25)
    assert store.executions.close_execution(job_id, executor_id, counted)
    (entry,) = history.read_history(ADMIN, job_id, HistoryRequest()).Executions
    assert (entry.Succeeded, entry.Failed, entry.EndTime) == (0, 1, 5.25)


def test_a_deleted_job_keeps_its_history() -> None:
    job_id = create("a", "n")
    executor_id = starts.start_job(ADMIN, job_id, START).Executors[-1]
    jobs.delete_job(ADMIN, job_id)
    assert executors(history.read_history(ADMIN, job_id, HistoryRequest())) == [executor_id]
    with pytest.raises(JobNotFound):
        history.read_history(OF_B, job_id, HistoryRequest())


def test_a_history_shows_no_id_that_the_caller_must_not_see() -> None:
    job_id = create("b", "n")
    in_b = [starts.start_job(ADMIN, job_id, START).Executors[-1] for _ in range(3)]
    jobs.edit_job(ADMIN, job_id, JobRequest(AppName="a", Name="n", Cmd="true"))
    in_a = [starts.start_job(ADMIN, job_id, START).Executors[-1] for _ in range(3)]
    first = history.read_history(OF_B, job_id, HistoryRequest(Limit=2))
    assert (executors(first), first.Next) == (in_b[:0:-1], in_b[1])
    last = history.read_history(OF_B, job_id, HistoryRequest(Limit=2, Next=first.Next))
    assert (executors(last), last.Next) == (in_b[:1], None)
    of_a = history.read_history(OF_A_AND_C, job_id, HistoryRequest(Limit=3))
    assert (executors(of_a), of_a.Next) == (in_a[::-1], None)


def test_a_small_page_reads_past_hidden_executions_in_large_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands of them would take longer than a request may."""
    sizes = []
    query = Execution.query

    def watched(*arguments: Any, **read: Any) -> Any:
        sizes.append(read["page_size"])
        return query(*arguments, **read)

    monkeypatch.setattr(Execution, "query", watched)
    history.read_history(OF_B, create("b", "n"), HistoryRequest(Limit=1))
    assert sizes == [100]


def test_a_job_without_starts_has_an_empty_history() -> None:
    job_id = create("a", "n")
    assert history.read_history(ADMIN, job_id, HistoryRequest()).Executions == []
    for caller, unknown in ((OF_B, job_id), (ADMIN, "02de331e-7f0c-4f0a-9d52-6a1f0c6f7d0b")):
        with pytest.raises(JobNotFound):
            history.read_history(caller, unknown, HistoryRequest())
