"""The table of steps against the code: as many requests, and items that take as many units."""

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import boto3
import pytest

from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import jobs, starts
from chalicelib.store.models import Job
from simulate import steps
from simulate.steps import Fanout, write_units
from simulate.usage import WRITE_UNITS, add, count_requests
from tests.support.builders import serve_node
from tests.support.costs import count_costs, size_of
from tests.support.fake_engine import container_id, node_id
from tests.unit.callers import ADMIN
from tests.unit.target.life import HeldRunner, container, printing
from worker.engine.client import Engine
from worker.engine.events import ExitCodes

pytestmark = pytest.mark.usefixtures("aws", "clock")

FANOUTS = [Fanout(1, 1), Fanout(32, 4), Fanout(320, 32), Fanout(110, 110)]
# What an engine says of an exec that is over.
EXEC = {
    "ID": "e" * 64,
    "Running": False,
    "ExitCode": 0,
    "ProcessConfig": {
        "tty": False,
        "entrypoint": "ps",
        "arguments": ["axu"],
        "privileged": False,
    },
    "OpenStdin": False,
    "OpenStderr": True,
    "OpenStdout": True,
    "CanRemove": False,
    "ContainerID": "c" * 64,
    "DetachKeys": "",
    "Pid": 1234567,
}


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
    return sum(map(write_units, sizes(table)))


def sizes(table: str) -> list[int]:
    """The bytes of each item of a table."""
    items = boto3.client("dynamodb").scan(TableName=f"{settings.prefix}-{table}")["Items"]
    return [size_of({"M": item}) for item in items]


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


@pytest.fixture
def engine() -> Any:
    """Its exec is over at once."""
    fake = create_autospec(Engine, instance=True)
    fake.inspect_container.side_effect = lambda id: container(id)
    fake.create.return_value = EXEC["ID"]
    fake.inspect.return_value = dict(EXEC)
    return fake


@pytest.mark.parametrize("output_bytes", [200, 512, 513, 8000, 20_000])
@pytest.mark.parametrize("targets", [1, 40])
def test_a_target(
    targets: int, output_bytes: int, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanout = Fanout(targets, 1, output_bytes)
    job_id = make_job(1)
    job = starts.start_job(ADMIN, job_id, request(fanout))
    engine.start.side_effect = printing((1, b"x" * output_bytes))
    target = TargetMessage(job_id, job.Executors[-1], container_id(0, 0), job.AppName)
    runner = HeldRunner(
        engine, create_autospec(ExitCodes, instance=True), tmp_path, node_id=node_id(0)
    )
    with count_costs(monkeypatch) as costs:
        runner.run(Received(target, "m1", "receipt", first=True))
    loads = add(steps.load(fanout), steps.load_part(fanout, 0))
    ends = add(steps.keep_log(fanout), steps.finish(fanout))
    wanted = count_requests(add(loads, steps.claim(fanout), ends))
    assert costs.requests == wanted
    assert units("results") == steps.finish(fanout)[WRITE_UNITS]
    assert units("outputs") == steps.keep_log(fanout).get(WRITE_UNITS, 0)
