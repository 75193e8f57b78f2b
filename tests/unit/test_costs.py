"""What a request costs in AWS's units. A test that fails here says that somebody made it dearer."""

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.ends import End
from chalicelib.domain.exec_inspect import expect, shorten
from chalicelib.domain.segments import Segment, log_name
from chalicelib.domain.states import Status
from chalicelib.domain.targets import in_order
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.history import HistoryRequest
from chalicelib.schemas.jobs import JobRequest, JobsRequest
from chalicelib.services import (
    closing,
    downloads,
    history,
    inspection,
    jobs,
    outcomes,
    starts,
    upkeep,
)
from chalicelib.store.models import Counts, Execution, Job, Node, Result, TargetPart
from tests.support.builders import (
    build_execution,
    build_inspect,
    build_node,
    build_result,
    serve_node,
)
from tests.support.clock import NOW, Clock, Enough
from tests.support.costs import count_costs, size_of_item
from tests.unit.callers import ADMIN
from worker.health import Pulse
from worker.lease import Lease
from worker.output.upload import Uploader
from worker.settler import Settler
from worker.target.outcome import StoredEnd
from worker.wishes import WishReader

pytestmark = pytest.mark.usefixtures("aws")

# A start: the job, the nodes, one transaction, and the messages.
# The longest end of an output that a thousand targets keep.
LONG = b"x" * (4 * 1024**2 // 1000)
START = {"GetItem": 1, "BatchGetItem": 1, "TransactWriteItems": 1}


@pytest.fixture
def job_id() -> str:
    serve_node("n1")
    return jobs.create_job(
        ADMIN, JobRequest(AppName="a", Name="n", Cmd="sh -c 'echo hello'", User="1000:1000")
    ).JobId


def request(targets: int, nodes: Sequence[str] = ("n1",)) -> StartRequest:
    """So many containers, evenly on these nodes."""
    return StartRequest(
        [Target(f"{number:064}", nodes[number % len(nodes)]) for number in range(targets)]
    )


def serve(nodes: int) -> list[str]:
    """So many nodes with ids as Swarm gives them. They share a queue."""
    url = store.nodes.get_nodes(["n1"])["n1"].QueueUrl
    found = [f"{number:025}" for number in range(nodes)]
    with Node.batch_write() as batch:
        for node_id in found:
            batch.save(build_node(node_id, QueueUrl=url))
    return found


def send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, starts send no messages: moto needs long for a thousand, and they are counted."""
    monkeypatch.setattr(queues, "send", lambda messages: None)


@pytest.mark.parametrize(
    ("targets", "batches", "units"), [(1, 1, 6), (32, 4, 12), (100, 10, 32), (1000, 100, 256)]
)
def test_a_start(
    job_id: str, monkeypatch: pytest.MonkeyPatch, targets: int, batches: int, units: int
) -> None:
    """On many nodes there is most to store; on one there are the fewest messages."""
    with count_costs(monkeypatch) as on_one:
        starts.start_job(ADMIN, job_id, request(targets))
    assert on_one.requests == {**START, "SendMessageBatch": batches}
    nodes = serve(targets)
    send_nothing(monkeypatch)
    with count_costs(monkeypatch) as on_many:
        executor_id = starts.start_job(ADMIN, job_id, request(targets, nodes)).Executors[-1]
    assert on_one.write_units <= on_many.write_units <= units
    # One unit for the job, and half a one for each node.
    assert on_many.read_units == 1 + targets / 2
    # No item grows with the number of targets.
    execution = store.executions.get_execution(job_id, executor_id)
    assert size_of_item(execution.serialize()) <= 4096
    assert all(size_of_item(part.serialize()) <= 4096 for part in TargetPart.scan())


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
    send_nothing(monkeypatch)
    executor_id = starts.start_job(ADMIN, job_id, request(targets)).Executors[-1]
    with count_costs(monkeypatch) as costs:
        inspection.inspect_execution(ADMIN, job_id, executor_id)
    assert costs.requests == wanted


def end_all(execution: Execution, output: bytes) -> None:
    """All targets of the execution have ended, and printed this."""
    with Result.batch_write() as batch:
        for target in in_order(store.targets.get_parts(execution)):
            exec_id = f"{target.position:064x}"
            inspect = build_inspect(exec_id, target.container_id)
            words, user = ["sh", "-c", "echo hello"], "1000:1000"
            expected = expect(exec_id, target.container_id, words, user, privileged=False)
            ids = (execution.JobId, execution.ExecutorId, target.container_id, target.part)
            result = build_result(*ids, NodeId=target.node_id, Status=Status.FINISHED, ID=exec_id)
            result.Inspect = shorten(inspect, expected)
            result.StartTime, result.EndTime = NOW + 0.123456, NOW + 0.654321
            result.ExpiresAt, result.OutputSize = int(NOW), len(output)
            store.outputs.keep(result, output)
            batch.save(result)


def test_reading_a_thousand_states(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output above 512 bytes is not read with the states, but only by an inspect."""
    send_nothing(monkeypatch)
    executor_id = starts.start_job(ADMIN, job_id, request(1000, serve(1000))).Executors[-1]
    execution = store.executions.get_execution(job_id, executor_id)
    end_all(execution, LONG)
    targets = in_order(store.targets.get_parts(execution))
    with count_costs(monkeypatch) as states:
        outcomes.list_results(execution, targets)
    assert states.read_units <= 48
    assert states.bytes_read <= 400_000
    with count_costs(monkeypatch) as inspect:
        answer = inspection.inspect_execution(ADMIN, job_id, executor_id)
    outputs = 1000 * math.ceil(len(LONG) / 4096) / 2
    # The execution and its parts are among these.
    assert inspect.read_units - outputs <= 65
    assert inspect.requests["BatchGetItem"] == 10 + 1
    shown = answer.Result[-1]
    assert shown["OutputSize"] == len(LONG)
    assert LONG.endswith(shown["Output"].encode())
    assert build_inspect(shown["ID"], shown["ContainerID"]).items() <= shown.items()


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


def accepted(job_id: str, targets: int) -> tuple[str, str]:
    return job_id, starts.start_job(ADMIN, job_id, request(targets)).Executors[-1]


def ends(positions: Iterable[int]) -> list[End]:
    return [End(position, True, NOW + position / 7) for position in positions]


@pytest.fixture
def ended_queue(aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    url = str(client("sqs").create_queue(QueueName="ended")["QueueUrl"])
    monkeypatch.setattr(queues, "settings", replace(settings, ended_queue_url=url))
    return url


@pytest.mark.usefixtures("ended_queue")
def test_costs_of_ends_that_come_together(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 32 on one node: one write of one unit, one report, and deletions by tens."""
    key, url = accepted(job_id, 32), queues.ensure_queue("n1")
    lease = Lease(Pulse())
    settler = Settler(lease, Pulse())
    settler.drain()
    received = [one for _ in range(4) for one in queues.receive(url, 10, 0)]
    for end, message in zip(ends(range(32)), received, strict=True):
        lease.hold(url, message)
        settler.settle(url, message.target, StoredEnd(end, 0, 32, int(NOW)))
    with count_costs(monkeypatch) as costs:
        assert settler._settle(settler._gather())
    assert costs.requests == {"UpdateItem": 1, "SendMessage": 1, "DeleteMessageBatch": 4}
    hash_key = {"S": "/".join(key)}
    stored = client("dynamodb").get_item(
        TableName=Counts.Meta.table_name, Key={"Execution": hash_key, "Part": {"N": "0"}}
    )
    assert size_of_item(stored["Item"]) < 1024


def test_requests_of_closing_a_hundred_executions(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read together, and each is one write."""
    keys = [accepted(job_id, 1) for _ in range(100)]
    for key in keys:
        store.counts.add_ends(*key, 0, ends([0]), NOW)
    with count_costs(monkeypatch) as costs:
        assert closing.close_ended(reports(keys)) == []
    assert costs.requests == {"BatchGetItem": 2, "UpdateItem": 100}


def test_requests_of_closing_a_thousand_targets(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = accepted(job_id, 1000)
    for part in range(32):
        store.counts.add_ends(*key, part, ends(range(32 * part, min(32 * part + 32, 1000))), NOW)
    with count_costs(monkeypatch) as costs:
        assert closing.close_ended(reports([key] * 32)) == []
    assert costs.requests == {"BatchGetItem": 2, "UpdateItem": 1}
    assert store.executions.get_execution(*key).Succeeded == 1000


def reports(keys: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {
        str(number): json.dumps({"JobId": job_id, "ExecutorId": executor_id})
        for number, (job_id, executor_id) in enumerate(keys)
    }


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_requests_of_a_turn_of_upkeep_for_which_nothing_is_due(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """One for each shard, however many executions are open. It writes nothing."""
    with Execution.batch_write() as batch:
        for number in range(count):
            execution = build_execution(f"j{number}", f"{NOW:.6f}")
            store.executions.make_due(execution, time.time() + 60)
            batch.save(execution)
    with count_costs(monkeypatch) as costs:
        upkeep.take_turn()
    assert costs.requests == {"Query": 16}


def test_requests_of_an_execution_that_is_due(
    job_id: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """It is taken and put off; its counts, its results and its nodes are read."""
    key = accepted(job_id, 32)
    container = request(1).Target[0].ContainerId
    build_result(*key, container, Status=Status.RUNNING, ID="e").save()
    store.counts.add_ends(*key, 0, ends(range(1, 32)), NOW)
    clock.now += 120
    with count_costs(monkeypatch) as costs:
        upkeep.take_turn()
    assert costs.requests == {"Query": 16 + 2, "BatchGetItem": 1, "UpdateItem": 2}


# Every read of a log: the execution and the result.
READ = {"GetItem": 2}


class Run:
    """A started command, and what its worker stores."""

    def __init__(self, job_id: str) -> None:
        executor_id = starts.start_job(ADMIN, job_id, request(1)).Executors[-1]
        self.ids = (job_id, executor_id, f"{0:064}")
        self.log = log_name(*self.ids)

    def write(self, status: Status, **fields: Any) -> None:
        build_result(*self.ids, Status=status, ID="e1", **fields).save()

    def put(self, key: str, content: bytes) -> None:
        client("s3").put_object(Bucket=settings.log_bucket, Key=key, Body=content)

    def read(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
        """What a read costs."""
        with count_costs(monkeypatch) as costs:
            downloads.read_log(ADMIN, *self.ids)
        return costs.requests


@pytest.fixture
def run(job_id: str, clock: Clock) -> Run:
    return Run(job_id)


def test_requests_of_reads_of_a_running_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    run.write(Status.RUNNING)
    store.segments.add(run.log, Segment(0, 2, b"ab"), 2_000_000_000)
    run.put(logs.segment_key(run.log, Segment(2, 3)), b"cde")
    store.segments.add(run.log, Segment(2, 3), 2_000_000_000)
    store.segments.set_caught_up(run.log, clock.now, 2_000_000_000)
    first = run.read(monkeypatch)
    # The wish is read and written, and the log's state says that its worker has caught up.
    assert first == {"GetItem": 4, "UpdateItem": 1, "Query": 1, "GetObject": 1}
    clock.now += 5
    assert run.read(monkeypatch) == {"GetItem": 3, "Query": 1, "GetObject": 1}


def test_each_look_of_a_reader_that_waits_is_two_requests(
    run: Run, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    run.write(Status.RUNNING)
    waited = run.read(monkeypatch)
    looks = len(clock.sleeps)
    assert looks == 10
    assert waited == {"GetItem": 3 + 2 * looks, "UpdateItem": 1, "Query": 1}


def test_requests_of_reads_of_a_finished_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write(Status.FINISHED, Output=b"all", OutputSize=3)
    assert run.read(monkeypatch) == READ
    run.write(Status.FINISHED, Output=b"end", OutputSize=9)
    run.put(logs.whole_key(run.log, 9), b"the whole")
    assert run.read(monkeypatch) == {**READ, "GetObject": 1}
    # A longer end of the output is beside the result. It is read only if it is all.
    run.write(Status.FINISHED, OutputAt="nonce", OutputSize=downloads.DIRECT_BYTES + 1)
    assert run.read(monkeypatch) == READ


@pytest.mark.parametrize(("executions", "batches"), [(0, 0), (1, 1), (250, 3)])
def test_requests_of_wishes_each_2_s(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, executions: int, batches: int
) -> None:
    """100 executions are one request. Nothing is asked for none."""
    uploader = create_autospec(Uploader, instance=True)
    uploader.executions.return_value = [("j1", f"{number}.000000") for number in range(executions)]
    clock.most_sleeps = 10
    with count_costs(monkeypatch) as costs, pytest.raises(Enough):
        WishReader(Pulse(), uploader).run()
    assert clock.sleeps[:10] == [2] * 10
    assert costs.requests == ({"BatchGetItem": 10 * batches} if batches else {})
