"""The table of steps against the code: as many requests, and items that take as many units."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.clients.aws import client
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.ends import End
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import closing, jobs, starts, upkeep
from chalicelib.store.models import Job
from simulate import months, steps
from simulate.steps import Fanout, write_units
from simulate.usage import READ_UNITS, WRITE_UNITS, Usage, add, count_requests, times
from tests.support.builders import build_node, serve_node
from tests.support.clock import NOW
from tests.support.costs import Costs, count_costs
from tests.support.fake_engine import container_id, node_id
from tests.unit.callers import ADMIN
from tests.unit.target.life import HeldRunner, container, printing
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.health import Pulse
from worker.lease import Lease
from worker.settler import Settler
from worker.target.outcome import StoredEnd

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


def make_job(nodes: int) -> str:
    """A job that was started often, and a worker on each node."""
    for node in range(nodes):
        serve_node(node_id(node))
    wanted = JobRequest(AppName="2048", ServiceName="2048_2048", Name="restart", Cmd="ps axu")
    job_id = str(jobs.create_job(ADMIN, wanted).JobId)
    before = [f"{number}.000000" for number in range(1_700_000_000, 1_700_000_125)]
    Job(job_id).update([Job.Executors.set(before)])
    return job_id


def assert_same(costs: Costs, *wanted: Usage) -> None:
    """Asserts that the code asked what the steps say: as many requests, and as many units."""
    usage = add(*wanted)
    assert costs.requests == count_requests(usage)
    assert costs.write_units == usage[WRITE_UNITS]
    assert costs.read_units == usage[READ_UNITS]


@pytest.mark.parametrize("fanout", FANOUTS, ids=str)
def test_a_start(fanout: Fanout, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = make_job(fanout.nodes)
    with count_costs(monkeypatch) as costs:
        starts.start_job(ADMIN, job_id, request(fanout))
    assert_same(costs, steps.accept(fanout), {"SendMessageBatch": fanout.nodes})


@pytest.fixture
def engine() -> Any:
    """Its exec is over at once."""
    fake = create_autospec(Engine, instance=True)
    fake.inspect_container.side_effect = lambda id: container(id)
    fake.create.return_value = EXEC["ID"]
    fake.inspect.return_value = dict(EXEC)
    return fake


@pytest.mark.parametrize("output_bytes", [200, 5_000, 20 * 1024])
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
    loads = (steps.load(fanout), steps.load_part(fanout, 0))
    ends = (steps.keep_log(fanout), steps.finish(fanout))
    assert_same(costs, *loads, steps.claim(fanout), *ends)


def test_a_turn_of_the_settler(monkeypatch: pytest.MonkeyPatch) -> None:
    fanout, job_id = Fanout(32, 1), make_job(1)
    executor_id = starts.start_job(ADMIN, job_id, request(fanout)).Executors[-1]
    url, lease = queues.ensure_queue(node_id(0)), Lease(Pulse())
    settler = Settler(lease, Pulse())
    settler.drain()
    received = [one for _ in range(4) for one in queues.receive(url, 10, 0)]
    for position, message in enumerate(received):
        lease.hold(url, message)
        end = StoredEnd(End(position, True, NOW), 0, 32, int(NOW))
        settler.settle(url, message.target, end)
    make_ended_queue(monkeypatch)
    with count_costs(monkeypatch) as costs:
        assert settler._settle(settler._gather())
    assert store.counts.get_counts(job_id, executor_id).keys() == {0}
    assert_same(costs, steps.count(fanout), steps.report(fanout), steps.delete(32))


def make_ended_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(client("sqs").create_queue(QueueName="ended")["QueueUrl"])
    monkeypatch.setattr(queues, "settings", replace(settings, ended_queue_url=url))


@pytest.mark.parametrize(("targets", "executions"), [(1, 3), (32, 2), (100, 2)])
def test_closing(targets: int, executions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fanout, job_id = Fanout(targets, 1), make_job(1)
    bodies = {}
    for number in range(executions):
        executor_id = starts.start_job(ADMIN, job_id, request(fanout)).Executors[-1]
        bodies[str(number)] = json.dumps({"JobId": job_id, "ExecutorId": executor_id})
        for position in range(targets):
            part = position // steps.PART_TARGETS
            store.counts.add_ends(job_id, executor_id, part, [End(position, True, NOW)], NOW)
    with count_costs(monkeypatch) as costs:
        assert closing.close_ended(bodies) == []
    looks = steps.look(fanout, executions, executions)
    assert_same(costs, looks, times(executions, steps.close(fanout)))


def test_a_turn_of_upkeep_for_which_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    with count_costs(monkeypatch) as costs:
        upkeep.take_turn()
    assert_same(costs, months.upkeep_turn())


def test_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    url = queues.ensure_queue(node_id(0))
    with count_costs(monkeypatch) as costs:
        store.nodes.announce(build_node(node_id(0), QueueUrl=url))
    assert costs.requests == {"PutItem": 1}
    assert costs.write_units == write_units(months.NODE_BYTES)
