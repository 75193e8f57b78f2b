"""The simulation against the real thing: API, AWS's emulator and a worker, with engines that are played.

How many requests there are must be the same. How long it takes is only told, in the summary: on two cores
that all share, times say little.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dev.addresses import free_port
from dev.api import Api
from dev.aws import Aws
from dev.children import start_child
from dev.tokens import bearer
from simulate.costs import LOCAL
from simulate.limits import Limits
from simulate.model import Execution, Model
from simulate.stack import Setup
from simulate.steps import Fanout
from tests.conftest import TOLD
from tests.support.fake_engine import container_id, node_id
from tests.support.faults import Faults
from tests.support.local_api import local_api
from tests.support.waiting import wait_until

NODES = 30
END_SECONDS = 60
# So long that each worker notes that the command runs.
COMMAND_SECONDS = 0.5
# How many of these there are depends on when targets end: a worker takes together what ended within half
# a second. One worker serves all nodes here, so there are fewer than with one on each node.
TIMED = ("UpdateItem", "DeleteMessageBatch", "ReceiveMessage")
COUNTED = ("TransactWriteItems", "SendMessageBatch", "SendMessage", "Decrypt")
# There are more of these if the machine is so slow that a worker uploads output before its command's end.
STORED = ("PutItem", "PUT")
NO_LIMITS = Limits(*[10**9] * 3, *[1e9] * 6, batches_of_a_queue=10**9)
# An engine that is played does next to nothing.
COSTS = replace(LOCAL, engine_cpu=0.006, exec_seconds=0.02)


@dataclass
class Real:
    """A running system, its calls to AWS counted."""

    api: Api
    aws: Aws
    faults: Faults

    def calls(self) -> Counter[str]:
        """How many calls there were until now, by operation; S3's by their HTTP method."""
        return Counter({count.operation: count.calls for count in self.faults.counts()})

    def wait_for_quiet(self) -> Counter[str]:
        """The calls once no more come, polls of idle queues aside."""
        seen: list[Counter[str]] = []

        def quiet() -> Counter[str] | None:
            time.sleep(1)
            seen.append(self.calls())
            del seen[-1]["ReceiveMessage"]
            return self.calls() if len(seen) > 1 and seen[-1] == seen[-2] else None

        return wait_until(quiet, END_SECONDS)

    def run(self, job_id: str, fanout: Fanout) -> tuple[Counter[str], dict[str, float]]:
        """What one start asked of AWS, and when what happened after its request."""
        before, beats, began = self.wait_for_quiet(), self._heartbeats(), time.time()
        answer = self.api.start(job_id, targets(fanout))
        answered = time.time() - began
        assert answer.ok, answer.text
        executor_id = answer.json()["Executors"][-1]
        closed = wait_until(lambda: self._closed(job_id, executor_id), END_SECONDS)
        times = {"answered": answered, "last over": closed - began}
        calls = self.wait_for_quiet() - before
        # Nodes announced themselves meanwhile, each at most once in such a time.
        calls["PutItem"] -= len(self._heartbeats() ^ beats) // 2
        return calls, times

    def _heartbeats(self) -> set[tuple[str, str]]:
        """When each node last announced itself."""
        table = f"{self.aws.environment['APPJOBS_PREFIX']}-nodes"
        items = self.aws.client("dynamodb").scan(TableName=table)["Items"]
        return {(item["NodeId"]["S"], item["Heartbeat"]["N"]) for item in items}

    def _closed(self, job_id: str, executor_id: str) -> float | None:
        """When its last target ended, once it is closed. It does not ask through the proxy."""
        key = {"JobId": {"S": job_id}, "ExecutorId": {"S": executor_id}}
        table = f"{self.aws.environment['APPJOBS_PREFIX']}-executions"
        item = self.aws.client("dynamodb").get_item(TableName=table, Key=key)["Item"]
        return float(item["EndTime"]["N"]) if "Succeeded" in item else None


def targets(fanout: Fanout) -> list[dict[str, str]]:
    """So many containers on each node, those of a node together."""
    return [
        {"ContainerId": container_id(node, number), "NodeId": node_id(node)}
        for node in range(fanout.nodes)
        for number in range(fanout.targets_of_a_node)
    ]


@pytest.fixture(scope="module")
def real(aws: Aws, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("scale")
    engines = [f"unix://{folder}/{number}.sock" for number in range(NODES)]
    with ExitStack() as stack:
        faults = Faults(aws.endpoint, "127.0.0.1", free_port(), folder / "faults.log")
        stack.enter_context(faults)
        environment = {**aws.environment, "AWS_ENDPOINT_URL": faults.endpoint}

        def start(name: str, *module: str, **settings: str) -> None:
            command = [sys.executable, "-m", *module]
            child = start_child(name, command, environment | settings, folder / f"{name}.log")
            stack.callback(child.stop, 1)

        start("engines", "tests.support.fake_engine", str(folder), str(NODES))
        wait_until(lambda: all(Path(url[7:]).exists() for url in engines))
        start(
            "worker",
            "worker",
            DOCKER_HOSTS=",".join(engines),
            SPOOL_DIR=str(folder / "spool"),
            HEALTH_PORT=str(free_port()),
        )
        start("upkeep", "dev.upkeep", UPKEEP_SECONDS="3600")
        url = stack.enter_context(local_api(environment, folder / "api.log", token))
        table = f"{aws.environment['APPJOBS_PREFIX']}-nodes"
        dynamodb = aws.client("dynamodb")
        wait_until(lambda: dynamodb.scan(TableName=table)["Count"] == NODES, END_SECONDS)
        yield Real(Api(url, bearer(token), seconds=END_SECONDS), aws, faults)


def simulated(fanout: Fanout) -> tuple[Counter[str], Execution]:
    setup = Setup(NO_LIMITS, COSTS, command_seconds=COMMAND_SECONDS)
    model = Model(setup, fanout, fanout.nodes)
    model.start()
    model.loop.run()
    usage = Counter({name: round(number) for name, number in model.stack.usage.items()})
    usage["PUT"] = usage["PutObject"]
    return usage, model.executions[0]


@pytest.mark.parametrize(
    "fanout",
    [
        Fanout(3, 3),
        Fanout(30, 3),
        Fanout(60, 30),
        Fanout(300, 30),
        Fanout(300, 30, output_bytes=20 * 1024),
    ],
    ids=lambda fanout: f"{fanout.targets} on {fanout.nodes}, {fanout.output_bytes} bytes",
)
def test_the_simulation_counts_what_the_real_thing_asks_of_aws(
    real: Real, fanout: Fanout, record_property: Callable[[str, Any], None]
) -> None:
    cmd = f"print {fanout.output_bytes} {COMMAND_SECONDS}"
    body = {"AppName": "scale", "Name": str(fanout.targets + fanout.output_bytes), "Cmd": cmd}
    job_id = real.api.create(body).json()["JobId"]
    expected, execution = simulated(fanout)
    calls, times = real.run(job_id, fanout)
    said = ", ".join(f"{name} {calls[name]} ({expected[name]})" for name in (*STORED, *TIMED))
    record_property(
        TOLD,
        f"answered after {times['answered']:.2f} s (simulated: {execution.answered:.2f}), last over "
        f"after {times['last over']:.2f} s ({execution.last_over:.2f}); {said}",
    )
    assert {name: calls[name] for name in COUNTED} == {name: expected[name] for name in COUNTED}
    for name in STORED:
        assert expected[name] <= calls[name] <= expected[name] + fanout.targets, name
