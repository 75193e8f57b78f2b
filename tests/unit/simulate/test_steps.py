"""The table of steps against the code: as many requests, and items that take as many units."""

import boto3
import pytest

from chalicelib.config import settings
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import jobs, starts
from chalicelib.store.models import Job
from simulate import steps
from simulate.steps import Fanout, write_units
from simulate.usage import add, count_requests
from tests.support.builders import serve_node
from tests.support.costs import count_costs, size_of
from tests.support.fake_engine import container_id, node_id
from tests.unit.callers import ADMIN

pytestmark = pytest.mark.usefixtures("aws", "clock")

FANOUTS = [Fanout(1, 1), Fanout(32, 4), Fanout(320, 32), Fanout(110, 110)]


def request(fanout: Fanout) -> StartRequest:
    return StartRequest(
        [
            Target(container_id(node, number), node_id(node))
            for node in range(fanout.nodes)
            for number in range(fanout.targets_of_a_node)
        ]
    )


def units(table: str) -> int:
    """The write units of each item of a table, added up."""
    items = boto3.client("dynamodb").scan(TableName=f"{settings.prefix}-{table}")["Items"]
    return sum(write_units(size_of({"M": item})) for item in items)


def make_job(nodes: int) -> str:
    """A job that was started often, and a worker on each node."""
    for node in range(nodes):
        serve_node(node_id(node))
    wanted = JobRequest(AppName="2048", ServiceName="2048_2048", Name="restart", Cmd="ps axu")
    job_id = str(jobs.create_job(ADMIN, wanted).JobId)
    before = [f"{number}.000000" for number in range(1_700_000_000, 1_700_000_125)]
    Job(job_id).update([Job.Executors.set(before)])
    return job_id


@pytest.mark.parametrize("fanout", FANOUTS, ids=str)
def test_a_start(fanout: Fanout, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = make_job(fanout.nodes)
    audited = units("audit")
    with count_costs(monkeypatch) as costs:
        starts.start_job(ADMIN, job_id, request(fanout))
    sends = {"SendMessageBatch": fanout.nodes}
    assert costs.requests == count_requests(add(steps.accept(fanout), sends))
    assert 2 * units("executions") == steps.execution_units(fanout)
    assert 2 * units("targets") == steps.parts_units(fanout)
    assert 2 * units("jobs") == steps.JOB_UNITS
    assert 2 * (units("audit") - audited) == steps.AUDIT_UNITS
