"""What a request costs in AWS's units. A test that fails here says that somebody made it dearer."""

import pytest

from chalicelib import store
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.history import HistoryRequest
from chalicelib.schemas.jobs import JobRequest, JobsRequest
from chalicelib.services import history, inspection, jobs, starts
from chalicelib.store.models import Job
from tests.support.builders import serve_node
from tests.support.costs import count_costs
from tests.unit.callers import ADMIN

pytestmark = pytest.mark.usefixtures("aws")

# A start: the job, the nodes, one transaction, and the messages.
START = {"GetItem": 1, "BatchGetItem": 1, "TransactWriteItems": 1}


@pytest.fixture
def job_id() -> str:
    serve_node("n1")
    return jobs.create_job(ADMIN, JobRequest(AppName="a", Name="n", Cmd="true")).JobId


def request(targets: int) -> StartRequest:
    return StartRequest([Target(f"{number:064}", "n1") for number in range(targets)])


@pytest.mark.parametrize(("targets", "batches"), [(1, 1), (100, 10), (1000, 100)])
def test_requests_of_a_start(
    job_id: str, monkeypatch: pytest.MonkeyPatch, targets: int, batches: int
) -> None:
    with count_costs(monkeypatch) as costs:
        starts.start_job(ADMIN, job_id, request(targets))
    assert costs.requests == {**START, "SendMessageBatch": batches}


def test_a_start_costs_the_same_however_many_there_were(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with count_costs(monkeypatch) as first:
        starts.start_job(ADMIN, job_id, request(1))
    # As after any number of starts: the list is as long as it gets, so one of these has to cut it.
    before = [f"{number}.000000" for number in range(1_000_000_000, 1_000_000_148)]
    Job(job_id).update([Job.Executors.set(before)])
    for _ in range(4):
        with count_costs(monkeypatch) as later:
            starts.start_job(ADMIN, job_id, request(1))
        assert later.requests == first.requests
        # The cut writes 100 ids: 2 KB more, twice.
        assert later.write_units <= first.write_units + 4
    assert len(store.jobs.get_job(job_id).Executors) < 150


@pytest.mark.parametrize(
    ("targets", "wanted"),
    [
        (1, {"GetItem": 1, "Query": 1}),
        (32, {"GetItem": 1, "Query": 1}),
        (1000, {"GetItem": 1, "BatchGetItem": 1, "Query": 32}),
    ],
)
def test_requests_of_an_inspect(
    job_id: str, monkeypatch: pytest.MonkeyPatch, targets: int, wanted: dict[str, int]
) -> None:
    executor_id = starts.start_job(ADMIN, job_id, request(targets)).Executors[-1]
    with count_costs(monkeypatch) as costs:
        inspection.inspect_execution(ADMIN, job_id, executor_id)
    assert costs.requests == wanted


def test_requests_of_a_page_of_jobs(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not grow with the number of jobs: the rest is not read."""
    for number in range(30):
        jobs.create_job(ADMIN, JobRequest(AppName="a", Name=f"{number}", Cmd="true"))
    with count_costs(monkeypatch) as costs:
        page = jobs.list_page(ADMIN, JobsRequest(AppName="a", Limit=10))
    assert len(page.Jobs) == 10
    assert costs.requests == {"Query": 1, "BatchGetItem": 1}


def test_requests_of_a_page_of_history(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(30):
        starts.start_job(ADMIN, job_id, request(1))
    with count_costs(monkeypatch) as costs:
        page = history.read_history(ADMIN, job_id, HistoryRequest(Limit=10))
    assert len(page.Executions) == 10
    assert costs.requests == {"Query": 1}
