"""Workers die at random moments while commands run; the engines' events say what really happened."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from docker import APIClient

from dev import sample
from dev.engine import docker
from dev.swarm import Swarm
from dev.swarm_node import Node
from tests.support.waiting import wait_until
from tests.swarm.conftest import SERVING, Cluster, Worker

# Every command appends its start's mark to this file of its container.
FILE = "/tmp/chaos"
# Seconds before a kill, and between two starts, on average.
KILL_PAUSE, START_PAUSE = 1.5, 2.5
# On each node, this many containers have their health checked every three seconds. Each check is an exec:
# the engine's 256 events reach back half a minute, less than the minute until an adoption.
CHECKED, CHECK_SECONDS = 10, 3
# If the machine is slower than that, starts wait until others are over: messages in a queue that
# grows and grows are adopted when the engine has forgotten their execs.
OPEN_AT_MOST = 40
LONGEST_COMMAND_SECONDS = 5
# A worker takes two, and longer on a machine with much else to do.
UP_SECONDS = 180
RECORDED_EVENTS = 256
# An engine keeps an exec that is over for at least this many seconds.
EXEC_MEMORY = 300
KILLED = -9

Event = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """One start, and what its command does in each of its containers."""

    mark: str
    exit_code: int
    prints: bool
    job_id: str
    executor_id: str
    targets: list[dict[str, str]]

    @property
    def may_be_cut_off(self) -> bool:
        """Whether the engine's 126 may hide another exit code, which only the event has."""
        return self.prints or self.exit_code == 126


@dataclass(frozen=True)
class End:
    """What an engine's event said of an exec's end."""

    exit_code: int
    # When it came and when the engine dropped it, in seconds.
    told: float
    dropped: float


class Witness(threading.Thread):
    """Follows all events of one engine."""

    def __init__(self, node: Node) -> None:
        super().__init__(name=f"events of {node.name}", daemon=True)
        self._stream = APIClient(node.docker_host).events(decode=True)
        self._seen: list[Event] = []

    def run(self) -> None:
        for event in self._stream:
            self._seen.append(event)

    def stop(self) -> None:
        self._stream.close()
        self.join()

    def ends(self) -> dict[str, End]:
        """How each exec ended, by its id."""
        return {
            attributes["execID"]: End(
                int(attributes["exitCode"]), self._time(index), self._time(index + RECORDED_EVENTS)
            )
            for index, event in enumerate(self._seen)
            if event["Action"] == "exec_die" and (attributes := event["Actor"]["Attributes"])
        }

    def _time(self, index: int) -> float:
        return self._seen[index]["timeNano"] / 1e9 if index < len(self._seen) else inf


@contextmanager
def health_checks(swarm: Swarm) -> Iterator[None]:
    """Containers beside the service's, on every node, whose health is checked all the time."""
    hosts = [node.docker_host for node in swarm.nodes]
    with ThreadPoolExecutor(len(hosts)) as pool:
        made = list(pool.map(_checked_containers, hosts))
        try:
            yield
        finally:
            list(pool.map(lambda host, ids: docker(host, "rm", "--force", *ids), hosts, made))


def _checked_containers(host: str) -> list[str]:
    check = ("--health-cmd", "true", "--health-interval", f"{CHECK_SECONDS}s")
    command = ("run", "--detach", *check, sample.IMAGE)
    return [docker(host, *command) for _ in range(CHECKED)]


class Chaos:
    """Starts jobs on all containers again and again, and kills the workers that run them."""

    def __init__(self, system: Cluster) -> None:
        self.starts: list[Start] = []
        self.kills = 0
        self._system = system
        self._targets = system.targets()
        self._workers: dict[str, list[Worker]] = defaultdict(list)
        # How many workers must have come up on a node before another one of them is killed.
        self._due: dict[str, int] = {}

    def run(self, kills: int) -> None:
        """Kills so often while starts go on; in the end there is a worker on each node."""
        enough = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(self._start_until, enough)
            try:
                for node in self._system.swarm.nodes:
                    self._start_workers(node, 1)
                while self.kills < kills:
                    self._strike()
            finally:
                enough.set()
            starting.result()

    def end(self) -> None:
        """Kills what is left."""
        for workers in self._workers.values():
            while workers:
                self._kill(workers.pop())

    def _strike(self) -> None:
        """Kills one worker; then there are one to three of them on its node."""
        # If workers die faster than they come up, nothing ever runs.
        nodes = wait_until(self._nodes_with_new_workers, UP_SECONDS, lambda: "no worker comes up")
        node = random.choice(nodes)
        # The moment is what this is about: there is no other condition to wait for.
        time.sleep(_pause(KILL_PAUSE))
        workers = self._workers[node.name]
        self._kill(workers.pop(random.randrange(len(workers))))
        self.kills += 1
        self._start_workers(node, random.choice((1, 2, 3)) - len(workers))

    def _nodes_with_new_workers(self) -> list[Node]:
        nodes = self._system.swarm.nodes
        return [node for node in nodes if self._served(node) >= self._due[node.name]]

    def _start_workers(self, node: Node, count: int) -> None:
        if count > 0:
            self._due[node.name] = self._served(node) + 1
        for _ in range(count):
            self._workers[node.name].append(self._system.start_worker(node))

    def _served(self, node: Node) -> int:
        """How many workers have come up on the node so far."""
        log = self._system.directory / f"worker-{node.name}.log"
        return log.read_text().count(SERVING)

    def _kill(self, worker: Worker) -> None:
        worker.process.kill()
        code = worker.process.wait()
        assert code == KILLED, f"a worker ended by itself, with code {code}: see {worker.log}"

    def _start_until(self, enough: threading.Event) -> None:
        while not enough.wait(_pause(START_PAUSE)):
            if self._system.open() >= OPEN_AT_MOST:
                continue
            for _ in range(random.choice((1, 1, 1, 3))):
                self.starts.append(self._start(f"start-{len(self.starts)}"))

    def _start(self, mark: str) -> Start:
        exit_code = random.choice((0, 0, random.randrange(256)))
        prints = random.random() < 0.5
        before, after = ("echo before; ", "echo after; ") if prints else ("", "")
        sleep = f"sleep {random.uniform(0, LONGEST_COMMAND_SECONDS):.2f}; "
        script = f"echo {mark} >> {FILE}; {before}{sleep}{after}exit {exit_code}"
        job_id = self._system.create(f"sh -c '{script}'")
        executor_id = self._system.start(job_id, self._targets)
        return Start(mark, exit_code, prints, job_id, executor_id, self._targets)


def _pause(mean: float) -> float:
    return random.uniform(0, 2 * mean)
