"""A real swarm of three nodes in network namespaces, one worker process on each, and the API."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.project import ROOT
from dev.addresses import free_port
from dev.api import Api
from dev.aws import Aws
from dev.children import Child, start_child
from dev.stack import start_aws
from dev.swarm import Swarm
from dev.swarm_node import Node
from dev.tokens import bearer
from tests.support.local_api import admin_token, local_api
from tests.support.waiting import wait_until
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.engine.exit_file import ExitFile
from worker.health import Pulse

END_SECONDS = 60
EXECUTIONS = "appjobs-dev-executions"
# What a worker logs when it has announced its node and begins to poll.
SERVING = '"serving"'
UNDER_WAY = ("STARTING", "CREATED", "RUNNING")


@dataclass
class Worker:
    """A worker process on one node."""

    process: "subprocess.Popen[bytes]"
    log: Path


@dataclass
class Cluster:
    """All the parts of a running system, and what a client does with them."""

    swarm: Swarm
    aws: Aws
    api_url: str
    token: str
    directory: Path
    workers: dict[str, Worker] = field(default_factory=dict)

    def start_worker(
        self, node: Node, program: Sequence[str] = ("worker",), **environment: str
    ) -> Worker:
        """Starts a worker on the node; it takes a moment until the node is announced."""
        log = self.directory / f"worker-{node.name}.log"
        settings = {
            **os.environ,
            **self.aws.environment,
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "DOCKER_HOSTS": node.docker_host,
            "POLL_SECONDS": "1",
            "SPOOL_DIR": str(self.directory / f"spool-{node.name}"),
            **environment,
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                node.run_command([sys.executable, "-m", *program]),
                cwd=ROOT,
                env=settings,
                stdout=output,
                stderr=output,
            )
        self.workers[node.name] = Worker(process, log)
        return self.workers[node.name]

    def start_upkeep(self, program: Sequence[str] = ("dev.upkeep",), **environment: str) -> Child:
        """Starts the process that plays the schedule and the dead-letter handler."""
        return start_child(
            "upkeep",
            [sys.executable, "-m", *program],
            {**self.aws.environment, **environment},
            self.directory / "upkeep.log",
        )

    def targets(self, *nodes: Node) -> list[dict[str, str]]:
        """Every container of the sample service on these nodes (default: on all)."""
        return [
            {"ContainerId": container, "NodeId": node.node_id}
            for node in nodes or self.swarm.nodes
            for container in node.containers()
        ]

    @property
    def api(self) -> Api:
        """The API, to a caller who may do everything."""
        return Api(self.api_url, bearer(self.token))

    def create(self, cmd: str, **fields: Any) -> str:
        """Saves a job and returns its id."""
        job = {"AppName": "2048", "Name": f"job {time.time_ns()}", "Cmd": cmd, **fields}
        return str(_json(self.api.create(job))["JobId"])

    def start(self, job_id: str, targets: list[dict[str, str]]) -> str:
        """Starts a job and returns the execution's id."""
        return str(_json(self.api.start(job_id, targets))["Executors"][-1])

    def executions(self, job_id: str) -> list[str]:
        """The ids of the job's executions."""
        return list(_json(self.api.get(job_id))["Executors"])

    def inspect(self, job_id: str, executor_id: str) -> list[dict[str, Any]]:
        """The results as they are now."""
        return list(_json(self.api.inspect(job_id, executor_id))["Result"])

    def end(
        self, job_id: str, executor_id: str, seconds: float = END_SECONDS
    ) -> list[dict[str, Any]]:
        """The results once all are over."""

        def over() -> list[dict[str, Any]] | None:
            results = self.inspect(job_id, executor_id)
            return None if any(result["Status"] in UNDER_WAY for result in results) else results

        return wait_until(over, seconds, lambda: str(self.inspect(job_id, executor_id)))

    def run(
        self, cmd: str, targets: list[dict[str, str]] | None = None, **fields: Any
    ) -> list[dict[str, Any]]:
        """Creates, starts and awaits a job."""
        job_id = self.create(cmd, **fields)
        return self.end(job_id, self.start(job_id, targets or self.targets()))

    def log(self, job_id: str, executor_id: str, container_id: str) -> requests.Response:
        """The log of one target, redirects followed."""
        return self.api.log(job_id, executor_id, container_id, follow=True)

    def open(self) -> int:
        """How many executions nobody has closed yet."""
        answer = self.client("dynamodb").scan(TableName=EXECUTIONS, IndexName="due", Select="COUNT")
        return int(answer["Count"])

    def is_closed(self, job_id: str, executor_id: str) -> bool:
        """Whether the execution is closed."""
        key = {"JobId": {"S": job_id}, "ExecutorId": {"S": executor_id}}
        item = self.client("dynamodb").get_item(TableName=EXECUTIONS, Key=key)["Item"]
        return "EndTime" in item

    def counters(self, job_id: str, executor_id: str) -> dict[str, int]:
        """What was stored when the execution was closed."""
        key = {"JobId": {"S": job_id}, "ExecutorId": {"S": executor_id}}
        item = self.client("dynamodb").get_item(TableName=EXECUTIONS, Key=key)["Item"]
        return {name: int(item[name]["N"]) for name in ("Total", "Succeeded", "Failed")}

    def client(self, service: str) -> Any:
        """A boto3 client of the AWS behind the system."""
        return self.aws.client(service)


def _json(response: requests.Response) -> Any:
    """The JSON of an answer that must be a success."""
    assert response.ok, response.text
    return response.json()


class _Followed(ExitCodes):
    def run(self) -> None:
        with suppress(SystemExit):
            super().run()


@contextmanager
def followed(engine: Engine, folder: Path) -> Iterator[ExitCodes]:
    """Follows the engine's events; after the block the thread ends with its next call of the engine."""
    exit_codes = _Followed(engine, ExitFile(folder, engine.url), Pulse())
    exit_codes.start()
    try:
        yield exit_codes
    finally:
        for name in ("connect", "follow_ends"):
            setattr(engine, name, _end_thread)


def _end_thread(*_: Any) -> None:
    raise SystemExit


def serve(cluster: Cluster) -> None:
    """Starts a worker on each node and waits until all are there."""
    for node in cluster.swarm.nodes:
        cluster.start_worker(node)
    wait_until(lambda: announced(cluster), END_SECONDS, lambda: "a worker is missing")


def worker_answer(node: Node, path: str, port: int = 9464) -> tuple[int, str]:
    """Status and text of the worker's own HTTP server, which listens only on the node's loopback."""
    script = (
        "import sys, urllib.request as u, urllib.error as e\n"
        "try: answer = u.urlopen(sys.argv[1], timeout=10)\n"
        "except e.HTTPError as error: answer = error\n"
        "print(answer.status); print(answer.read().decode(), end='')"
    )
    command = [sys.executable, "-c", script, f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(node.run_command(command), capture_output=True, text=True, check=True)
    status, _, text = done.stdout.partition("\n")
    return int(status), text


def announced(cluster: Cluster) -> bool:
    """Whether every node has a worker: a start on it is not refused."""
    job_id = cluster.create("true")
    executor_id = cluster.start(job_id, cluster.targets())
    reasons = [result.get("Reason") for result in cluster.end(job_id, executor_id)]
    return "node_unknown" not in reasons


def emptied(cluster: Cluster) -> bool:
    """Whether no message is left on a node's queue, visible or in a worker's hands."""
    sqs = cluster.client("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    urls = sqs.list_queues(QueueNamePrefix="appjobs-dev-node-")["QueueUrls"]
    queues = [sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names) for url in urls]
    return not any(int(queue["Attributes"][name]) for queue in queues for name in names)


@contextmanager
def running_cluster(directory: Path) -> Iterator[Cluster]:
    """A swarm, an AWS that its nodes can reach, the API, and a worker on each node."""
    with Swarm(directory / "swarm") as swarm, system_on(swarm, directory) as cluster:
        serve(cluster)
        yield cluster


@contextmanager
def system_on(swarm: Swarm, directory: Path, **environment: str) -> Iterator[Cluster]:
    """An AWS that the swarm's nodes can reach, and the API; no worker until the block starts some.

    All its parts have the `environment` besides. It shares nothing but the engines with another one.
    """
    aws = start_aws(directory / "aws", free_port(), bind=swarm.host_address)
    try:
        aws.environment |= environment
        token = admin_token(aws.environment)
        with local_api(aws.environment, directory / "api.log", token) as api_url:
            system = Cluster(swarm, aws, api_url, token, directory)
            try:
                yield system
            finally:
                stop_workers(system)
    finally:
        aws.stop()


@contextmanager
def reaching_aws_at(endpoint: str, cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with an API, upkeep and workers that reach AWS there; then its own workers again.

    Its own API runs on beside: it tells what is, whatever lies on the way to `endpoint`.
    """
    environment = {**cluster.aws.environment, "AWS_ENDPOINT_URL": endpoint}
    aws = replace(cluster.aws, endpoint=endpoint, environment=environment)
    with local_api(environment, cluster.directory / "api-elsewhere.log", cluster.token) as api_url:
        system = replace(cluster, aws=aws, api_url=api_url, workers={})
        # All workers of a node share its queue: no other one may take the messages that these should run.
        drain_workers(cluster)
        try:
            for node in cluster.swarm.nodes:
                system.start_worker(node)
            with upkeep(system):
                yield system
        finally:
            stop_workers(system)
            for node in cluster.swarm.nodes:
                cluster.start_worker(node)


@contextmanager
def upkeep(system: Cluster) -> Iterator[None]:
    """Upkeep of the open executions, more often than AWS calls it."""
    child = system.start_upkeep(UPKEEP_SECONDS="5")
    try:
        yield
    finally:
        child.stop()


def drain_workers(cluster: Cluster) -> None:
    """Ends all workers, as soon as they have nothing more to do."""
    for worker in cluster.workers.values():
        worker.process.terminate()
    for worker in cluster.workers.values():
        worker.process.wait(END_SECONDS)


def stop_workers(cluster: Cluster) -> None:
    """Ends all workers, at once."""
    for worker in cluster.workers.values():
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The system that all swarm tests share."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
