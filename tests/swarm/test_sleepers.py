"""Many commands that run long: they leave room for others, and cost little. `make sleepers N=1000`."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dev import sample
from dev.engine import docker
from tests.support.waiting import wait_until
from tests.swarm.conftest import Cluster

# How many commands sleep at the same time, the same number in each container.
CONTAINERS = 12
N = int(os.environ.get("N") or 24) // CONTAINERS * CONTAINERS
# The places of the first minute, which is shorter here, in seconds.
PLACES, PLACE_SECONDS = 8, 3 if N < 100 else 1
STARTED_SECONDS = 60 + N
WATCHED_SECONDS = 5 if N < 100 else 60
TICKS = os.sysconf("SC_CLK_TCK")

pytestmark = pytest.mark.timeout(300 + 3 * N)
Start = tuple[str, str]


@pytest.fixture
def targets(cluster: Cluster) -> Iterator[list[dict[str, str]]]:
    """Containers on one node."""
    node = cluster.swarm.nodes[0]
    made = [docker(node.docker_host, "run", "-d", sample.IMAGE) for _ in range(CONTAINERS)]
    yield [{"ContainerId": container, "NodeId": node.node_id} for container in made]
    docker(node.docker_host, "rm", "--force", *made)


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[int]:
    """The node's worker, with few places; its process."""
    node = cluster.swarm.nodes[0]
    cluster.workers[node.name].process.kill()
    cluster.workers[node.name].process.wait()
    time.sleep(1.5)  # Its last poll, of 1 s, would take a message with it for a minute.
    program = ("tests.swarm.hasty", str(PLACE_SECONDS))
    limits = {"MAX_COMMANDS": str(PLACES), "MAX_RUNNING": str(2 * N)}
    hasty = cluster.start_worker(node, program, **limits)
    yield hasty.process.pid
    hasty.process.terminate()
    assert hasty.process.wait(60) == 0
    cluster.start_worker(node)


def statuses(cluster: Cluster, starts: list[Start]) -> Counter[str]:
    return Counter(result["Status"] for start in starts for result in cluster.inspect(*start))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_sleeping_commands_leave_room_for_the_others(
    cluster: Cluster, targets: list[dict[str, str]], worker: int
) -> None:
    node = cluster.swarm.nodes[0]
    sleeper = cluster.create("sh -c 'echo asleep; exec sleep 3000'", AppName="sleepers")
    starts = [(sleeper, cluster.start(sleeper, targets)) for _ in range(N // CONTAINERS)]
    # They all wait on the queue before it, and some have all the places.
    wait_until(lambda: statuses(cluster, starts)["RUNNING"], 60, lambda: "nobody sleeps")
    began = time.monotonic()
    other = cluster.create("echo awake", AppName="others")
    results = cluster.end(other, cluster.start(other, targets[:1]))
    waited = time.monotonic() - began
    assert [result["Output"] for result in results] == ["awake\n"]
    assert statuses(cluster, starts)["STARTING"] > 0
    assert waited < 60

    def all_asleep() -> bool:
        return statuses(cluster, starts) == {"RUNNING": N}

    wait_until(all_asleep, STARTED_SECONDS, lambda: str(statuses(cluster, starts)))
    before = cpu_seconds(worker)
    time.sleep(WATCHED_SECONDS)
    used = (cpu_seconds(worker) - before) / WATCHED_SECONDS
    found = status(worker)
    print(
        f"\n{N} sleeping commands: {found['Threads']} threads, RSS {found['VmRSS']}, "
        f"{used:.1%} of a processor; another application's command was over after {waited:.1f} s"
    )
    for target in targets:
        docker(node.docker_host, "exec", target["ContainerId"], "killall", "sleep")
    ends = all_ends(cluster, starts)
    assert Counter(end["Status"] for end in ends) == {"FINISHED": N}
    assert {(end["Output"], end.get("OutputIncomplete")) for end in ends} == {("asleep\n", None)}


def all_ends(cluster: Cluster, starts: list[Start]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(4) as pool:
        return [
            end for ends in pool.map(lambda start: cluster.end(*start, 120), starts) for end in ends
        ]
