"""A process dies right before or right after each of its writes and calls; the table says what follows.

All of them die first, each over a job of its own. Then plain processes bring all jobs to their ends.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from deploy.project import ROOT
from dev.api import Api
from dev.engine import docker
from dev.swarm_node import Node
from dev.tokens import bearer
from tests.support.local_api import local_api
from tests.support.waiting import wait_until
from tests.swarm.conftest import (
    SERVING,
    Cluster,
    emptied,
    serve,
    stop_workers,
    system_on,
    upkeep,
)

EXIT_CODE = 7
FILE = "/tmp/kill-points"
KILLED = -9
# A fifth of it is how long upkeep waits before it sends messages again: as long as a dead worker's
# messages need to come back. After all of it, a target is too late to run.
DEADLINE_SECONDS = 300
QUIET_SECONDS = 150
# Until as many processes as there are deaths have started and died.
DEATH_SECONDS = 180
KILLABLE = "tests.swarm.killable"
# What the command prints is in the log, or not; and whether the result says that some may be missing.
OUTPUTS = {"whole": ("out\n", None), "in doubt": ("out\n", True), "lost": ("", True)}

# What the command prints at once, in bytes: a short output is in no log of its own, and only much of it
# fills a segment that replaces others.
WIDTHS = {
    "segment": [9000],
    "append": [9000],
    "replace": [9000, 9000, 6_000_000],
    "assemble": [9000],
    "keep": [1000],
}


@dataclass(frozen=True)
class Death:
    """Which process dies at which call, what the result is then, and what its output is in the end.

    In the end every command has run once, and its exit code is known. (Under load, an exec may start
    so slowly that a result is RUNNING before it has.)
    """

    part: str
    point: str
    when: str
    found: str
    output: str

    def __str__(self) -> str:
        return f"{self.part} {self.when} {self.point}"


DEATHS = [
    Death("API", "send", "before", "STARTING", "whole"),
    Death("API", "send", "after", "STARTING", "whole"),
    Death("worker", "take", "before", "STARTING", "whole"),
    Death("worker", "take", "after", "STARTING", "whole"),
    Death("worker", "create", "before", "STARTING", "whole"),
    Death("worker", "create", "after", "STARTING", "whole"),
    Death("worker", "claim", "before", "STARTING", "whole"),
    Death("worker", "claim", "after", "CREATED", "whole"),
    Death("worker", "start", "before", "CREATED or RUNNING", "whole"),
    Death("worker", "start", "after", "CREATED or RUNNING", "lost"),
    Death("worker", "read", "before", "CREATED or RUNNING", "lost"),
    Death("worker", "read", "after", "CREATED or RUNNING", "in doubt"),
    Death("worker", "running", "before", "CREATED", "in doubt"),
    Death("worker", "running", "after", "RUNNING", "in doubt"),
    Death("worker", "segment", "before", "RUNNING", "in doubt"),
    Death("worker", "segment", "after", "RUNNING", "in doubt"),
    Death("worker", "append", "before", "RUNNING", "in doubt"),
    Death("worker", "append", "after", "RUNNING", "in doubt"),
    Death("worker", "replace", "before", "RUNNING", "in doubt"),
    Death("worker", "replace", "after", "RUNNING", "in doubt"),
    Death("worker", "assemble", "before", "RUNNING", "in doubt"),
    Death("worker", "assemble", "after", "RUNNING", "in doubt"),
    Death("worker", "keep", "before", "RUNNING", "in doubt"),
    Death("worker", "keep", "after", "RUNNING", "in doubt"),
    Death("worker", "finish", "before", "RUNNING", "in doubt"),
    Death("worker", "finish", "after", "FINISHED", "whole"),
    Death("worker", "count", "before", "FINISHED", "whole"),
    Death("worker", "count", "after", "FINISHED", "whole"),
    Death("worker", "report", "before", "FINISHED", "whole"),
    Death("worker", "report", "after", "FINISHED", "whole"),
    Death("worker", "delete", "before", "FINISHED", "whole"),
    Death("worker", "delete", "after", "FINISHED", "whole"),
    Death("upkeep", "pick", "before", "STARTING", "whole"),
    Death("upkeep", "pick", "after", "STARTING", "whole"),
    Death("upkeep", "resend", "before", "STARTING", "whole"),
    Death("upkeep", "resend", "after", "STARTING", "whole"),
    Death("upkeep", "note", "before", "STARTING", "whole"),
    Death("upkeep", "note", "after", "STARTING", "whole"),
    Death("upkeep", "close", "before", "FINISHED", "whole"),
    Death("upkeep", "close", "after", "FINISHED", "whole"),
    Death("closing", "close", "before", "FINISHED", "whole"),
    Death("closing", "close", "after", "FINISHED", "whole"),
]


@dataclass(frozen=True)
class Run:
    """The start of a death's own job."""

    death: Death
    job_id: str
    executor_id: str


@dataclass(frozen=True)
class Outcome:
    """What a death left behind, and what became of it."""

    found: str
    result: dict[str, Any]
    counters: dict[str, int]
    times_run: int


def deaths(part: str, *points: str) -> list[Death]:
    """The deaths of one part, at some of its points."""
    return [death for death in DEATHS if death.part == part and death.point in points]


def create(system: Cluster, death: Death) -> str:
    """The death's own job."""
    # A short output is in no log. A very short one has no item of its own either.
    out = "; ".join(f'printf "%{width}s\\n" out; sleep 1' for width in WIDTHS.get(death.point, [0]))
    # Each piece of a log that is to be replaced is uploaded before more comes.
    out = out.replace("sleep 1; printf", "sleep 3; printf")
    script = f'echo "{death}" >> {FILE}; {out}; exit {EXIT_CODE}'
    return system.create(f"sh -c '{script}'")


def start(system: Cluster, jobs: dict[str, Death], node: Node) -> list[Run]:
    """Starts each of the jobs in one container of the node, which it does not spell out."""
    (target, *_) = system.targets(node)
    short = {**target, "ContainerId": target["ContainerId"][:12]}
    return [Run(death, job, system.start(job, [short])) for job, death in jobs.items()]


def kills(jobs: dict[str, Death]) -> dict[str, str]:
    """The setting that says where a killable process dies."""
    return {"KILLS": json.dumps({job: (death.point, death.when) for job, death in jobs.items()})}


def workers_die(system: Cluster, node: Node) -> list[Run]:
    """As many workers as there are deaths take one message each, and die over it."""
    jobs = {create(system, death): death for death in DEATHS if death.part == "worker"}
    settings = {**kills(jobs), "MAX_COMMANDS": "1"}
    workers = [system.start_worker(node, (KILLABLE, "worker"), **settings) for _ in jobs]
    log = workers[0].log
    before = log.read_text().count(SERVING)
    wait_until(
        lambda: log.read_text().count(SERVING) == before + len(workers),
        DEATH_SECONDS,
        log.read_text,
    )
    runs = start(system, jobs, node)
    assert {worker.process.wait(DEATH_SECONDS) for worker in workers} == {KILLED}
    return runs


@contextmanager
def messages_taken(system: Cluster, node: Node) -> Iterator[None]:
    """Somebody takes the node's messages and does nothing: upkeep finds none waiting and sends more."""
    sqs = system.client("sqs")
    url = sqs.get_queue_url(QueueName=f"appjobs-dev-node-{node.node_id}")["QueueUrl"]
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(take)
        try:
            yield
        finally:
            over.set()
            taking.result()


def upkeep_dies(system: Cluster, run: Run) -> None:
    """Upkeep dies over a job that was started before."""
    settings = {**kills({run.job_id: run.death}), "UPKEEP_SECONDS": "1"}
    child = system.start_upkeep((KILLABLE, "upkeep"), **settings)
    assert child.process.wait(DEATH_SECONDS) == KILLED


def closing_dies(system: Cluster, run: Run) -> None:
    """The function that closes executions dies over a job that was started before."""
    child = system.start_upkeep((KILLABLE, "closing"), **kills({run.job_id: run.death}))
    url = system.aws.environment["ENDED_QUEUE_URL"]
    body = json.dumps({"JobId": run.job_id, "ExecutorId": run.executor_id})

    def is_dead() -> bool:
        # The others that die here may have taken its message: they keep it for a minute.
        system.client("sqs").send_message(QueueUrl=url, MessageBody=body)
        return child.process.poll() is not None

    wait_until(is_dead, DEATH_SECONDS, lambda: "closing does not die")
    assert child.process.returncode == KILLED


def api_dies(system: Cluster, death: Death, node: Node) -> Run:
    """An API dies while it starts a job: it has accepted it, and gives no answer."""
    job_id = create(system, death)
    environment = {**system.aws.environment, **kills({job_id: death})}
    log = system.directory / f"api-{death.when}.log"
    command = (KILLABLE, "gateway")
    with local_api(environment, log, system.token, command) as url:
        dying = Api(url, bearer(system.token), seconds=DEATH_SECONDS)
        with pytest.raises(requests.ConnectionError):
            dying.start(job_id, system.targets(node)[:1])
    (executor_id,) = system.executions(job_id)
    return Run(death, job_id, executor_id)


def all_die(system: Cluster) -> list[Run]:
    """Lets them all die. On the other two nodes nobody does the work of those that die there."""
    served, idle, unserved = system.swarm.nodes
    over, reported = (
        start(system, {create(system, death): death for death in deaths(part, "close")}, served)
        for part in ("upkeep", "closing")
    )
    for run in (*over, *reported):
        system.end(run.job_id, run.executor_id)
    # The workers have counted them by then.
    wait_until(lambda: emptied(system), DEATH_SECONDS, lambda: "not settled")
    stop_workers(system)
    apis = [api_dies(system, death, unserved) for death in deaths("API", "send")]
    waiting = {create(system, d): d for d in deaths("upkeep", "pick", "resend", "note")}
    ready = over + start(system, waiting, idle)
    with messages_taken(system, idle), ThreadPoolExecutor() as pool:
        upkeeps = pool.map(lambda run: upkeep_dies(system, run), ready)
        closings = pool.map(lambda run: closing_dies(system, run), reported)
        runs = [*apis, *ready, *reported, *workers_die(system, served)]
        list(upkeeps)
        list(closings)
    return runs


def result(system: Cluster, run: Run) -> dict[str, Any]:
    """The only result of a start."""
    (only,) = system.inspect(run.job_id, run.executor_id)
    return only


def outcome(system: Cluster, run: Run, found: str) -> Outcome:
    """What there is in the end."""
    end = result(system, run)
    (node,) = [node for node in system.swarm.nodes if node.node_id == end["NodeId"]]
    lines = docker(node.docker_host, "exec", end["ContainerId"], "cat", FILE).splitlines()
    counters = system.counters(run.job_id, run.executor_id)
    return Outcome(found, end, counters, lines.count(str(run.death)))


@pytest.fixture(scope="module")
def outcomes(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Death, Outcome]]:
    """What became of every death's job, on the cluster's engines with a separate AWS."""
    directory = tmp_path_factory.mktemp("kill-points")
    with system_on(cluster.swarm, directory, DELIVERY_DEADLINE=str(DEADLINE_SECONDS)) as system:
        serve(system)
        runs = all_die(system)
        found = {run: str(result(system, run)["Status"]) for run in runs}
        serve(system)
        with upkeep(system):
            wait_until(lambda: settled(system), QUIET_SECONDS, lambda: str(system.open()))
        yield {run.death: outcome(system, run, found[run]) for run in runs}


def settled(system: Cluster) -> bool:
    """Whether every execution is closed and no message is left."""
    return not system.open() and emptied(system)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_after_a_death_the_command_ends_once_with_its_exit_code(
    death: Death, outcomes: dict[Death, Outcome]
) -> None:
    outcome = outcomes[death]
    assert outcome.found in death.found.split(" or ")
    assert outcome.times_run == 1
    result = outcome.result
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", EXIT_CODE)
    output = result["Output"].lstrip(" ")
    assert (output, result.get("OutputIncomplete")) == OUTPUTS[death.output]
    assert outcome.counters == {"Total": 1, "Succeeded": 0, "Failed": 1}


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "failure.md").read_text()
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("| ").split("|")]
        for line in text.splitlines()
        if line.startswith(("| API |", "| worker |", "| upkeep |", "| closing |"))
    ]
    documented = [Death(*row[:4], row[-1]) for row in rows]
    assert documented == DEATHS
