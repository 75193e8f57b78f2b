"""Engines that die, hang or lose their connection, nodes that lose the network, workers that leave.

Each result ends, and says the truth about how. `OUTAGE_SECONDS` sets how long the network is away.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dev import sample
from dev.engine import docker
from dev.swarm import Swarm
from dev.swarm_node import Node
from tests.support.waiting import wait_until
from tests.swarm.chaos import RECORDED_EVENTS
from tests.swarm.conftest import SERVING, Cluster, followed, worker_answer
from tests.swarm.cuttable import CuttableSocket
from worker.engine.client import Engine

# Longer than a message stays invisible when nobody extends that.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS") or 75)
# An adopter finds a dead worker's message within a minute.
ADOPTION_SECONDS = 120

MARK = "/tmp/mark"

Result = dict[str, Any]
Target = dict[str, str]
Container = Callable[[Node], Target]

pytestmark = pytest.mark.timeout(120 + 4 * OUTAGE_SECONDS)


@pytest.fixture
def container(cluster: Cluster) -> Iterator[Container]:
    """Makes containers that Swarm does not take elsewhere when their node is away."""
    made: list[tuple[Node, str]] = []

    def make(node: Node) -> Target:
        id = docker(node.docker_host, "run", "--detach", sample.IMAGE)
        made.append((node, id))
        return {"ContainerId": id, "NodeId": node.node_id}

    yield make
    for node, id in made:
        docker(node.docker_host, "rm", "--force", id)


def started(cluster: Cluster, target: Target, script: str) -> tuple[str, str]:
    """Starts a script, and waits until it runs and has left its mark. Returns job and execution."""
    job_id = cluster.create(f"sh -c 'echo ran >> {MARK}; echo begun; {script}'")
    executor_id = cluster.start(job_id, [target])

    def running() -> bool:
        return cluster.inspect(job_id, executor_id)[0]["Status"] == "RUNNING"

    wait_until(running, 60, lambda: str(cluster.inspect(job_id, executor_id)))
    return job_id, executor_id


def runs(node: Node, target: Target) -> int:
    """How often the script ran."""
    left = docker(node.docker_host, "exec", target["ContainerId"], "cat", MARK)
    return left.split().count("ran")


def ended(cluster: Cluster, job_id: str, executor_id: str, seconds: float = 60) -> Result:
    """The only result, once it is over."""
    return cluster.end(job_id, executor_id, seconds)[0]


@pytest.fixture
def unserved(cluster: Cluster) -> Iterator[Callable[[Node], Node]]:
    """Drains the worker of a node; afterwards each node gets one again."""
    drained: list[Node] = []

    def drain(node: Node) -> Node:
        drained.append(node)
        worker = cluster.workers[node.name].process
        worker.terminate()
        worker.wait(60)
        return node

    yield drain
    for node in drained:
        worker = cluster.workers[node.name].process
        worker.kill()
        worker.wait()
        # SQS gives the next message to a poll whose sender is dead, until that poll is over.
        time.sleep(2)
        cluster.start_worker(node)


def spread_tasks(swarm: Swarm) -> None:
    """Has the sample's tasks on all nodes again: Swarm moved those of a node that was away."""
    docker(
        swarm.manager.docker_host,
        *("service", "update", "--force", "--detach", "--quiet", sample.SERVICE),
    )

    def tasks_run_again() -> bool:
        counts = [len(each.containers()) for each in swarm.nodes]
        return min(counts) > 0 and sum(counts) == swarm.tasks

    wait_until(tasks_run_again, 120, lambda: "the tasks do not run")


@pytest.mark.engine
def test_a_killed_engines_commands_are_lost_and_say_so(
    cluster: Cluster, container: Container, tmp_path: Path
) -> None:
    node = cluster.swarm.nodes[1]
    target = container(node)
    engine = Engine(node.docker_host, pool=2)
    with followed(engine, tmp_path) as exit_codes:
        job_id, executor_id = started(cluster, target, "sleep 300")
        log = (job_id, executor_id, target["ContainerId"])
        wait_until(lambda: cluster.log(*log).text == "begun\n", 20, lambda: "no log")
        node.kill_engine()
        try:
            assert cluster.inspect(job_id, executor_id)[0]["Status"] == "RUNNING"
            # The other nodes are none the worse for it.
            others = cluster.run("hostname", cluster.targets(cluster.swarm.nodes[0]))
            assert {result["Status"] for result in others} == {"FINISHED"}
        finally:
            node.start_engine()
            spread_tasks(cluster.swarm)
        result = ended(cluster, job_id, executor_id)
        assert (result["Status"], result["Reason"]) == ("RUNNING_FAILED", "lost")
        assert (result["Output"], result["OutputIncomplete"]) == ("begun\n", True)
        # Its worker goes on with the new engine.
        again = cluster.run("echo again", cluster.targets(node))
        assert {result["Output"] for result in again} == {"again\n"}
        # And the thread that follows its events reconnects too.
        exec_id = engine.create(node.containers()[0], ["sh", "-c", "exit 9"], [], "", False)
        assert list(engine.start(exec_id)) == []
        wait_until(lambda: exit_codes.find(exec_id) == 9, 30, lambda: "its end was not told")


def test_a_worker_serves_its_other_engines_while_one_hangs(
    cluster: Cluster, container: Container, unserved: Callable[[Node], Node]
) -> None:
    hanging, other = unserved(cluster.swarm.nodes[2]), unserved(cluster.swarm.nodes[1])
    cluster.start_worker(other, DOCKER_HOSTS=f"{hanging.docker_host},{other.docker_host}")
    target = container(hanging)
    job_id, executor_id = started(cluster, target, "sleep 3; echo done; exit 5")
    hanging.pause_engine()
    try:
        late_job = cluster.create("echo late")
        late = cluster.start(late_job, [target])
        for _ in range(3):
            results = cluster.run("hostname", cluster.targets(other))
            assert {result["Status"] for result in results} == {"FINISHED"}
        # The command is over by now, but nobody can know.
        time.sleep(4)
        assert cluster.inspect(job_id, executor_id)[0]["Status"] == "RUNNING"
    finally:
        hanging.resume_engine()
    result = ended(cluster, job_id, executor_id)
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 5)
    # An engine that stood still past the command's end may have dropped some of its output.
    assert result["Output"] == "begun\ndone\n" or result["OutputIncomplete"]
    assert ended(cluster, late_job, late, ADOPTION_SECONDS)["Output"] == "late\n"
    assert runs(hanging, target) == 1


def test_a_node_that_loses_the_network_for_some_minutes_loses_nothing(
    cluster: Cluster, container: Container
) -> None:
    node = cluster.swarm.nodes[2]
    target = container(node)
    job_id, executor_id = started(cluster, target, "sleep 10; echo done; exit 3")
    node.disconnect()
    try:
        late_job = cluster.create("echo late")
        late = cluster.start(late_job, [target])
        others = cluster.run("hostname", cluster.targets(cluster.swarm.nodes[0]))
        assert {result["Status"] for result in others} == {"FINISHED"}
        time.sleep(OUTAGE_SECONDS)
        assert cluster.inspect(job_id, executor_id)[0]["Status"] == "RUNNING"
        assert health(node) == (200, "ok\n")
    finally:
        node.reconnect()
        spread_tasks(cluster.swarm)
    result = ended(cluster, job_id, executor_id, ADOPTION_SECONDS)
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 3)
    assert (result["Output"], result.get("OutputIncomplete")) == ("begun\ndone\n", None)
    assert cluster.log(job_id, executor_id, target["ContainerId"]).text == "begun\ndone\n"
    assert ended(cluster, late_job, late, ADOPTION_SECONDS)["Output"] == "late\n"
    assert runs(node, target) == 1


@pytest.mark.engine
@pytest.mark.parametrize("silent", [True, False])
def test_a_connection_cut_in_the_middle_costs_output_and_no_exit_code(
    cluster: Cluster, container: Container, unserved: Callable[[Node], Node], silent: bool
) -> None:
    node = unserved(cluster.swarm.nodes[1])
    path = node.run_dir / f"{uuid4().hex}.sock"
    with CuttableSocket(path, node.docker_host) as way:
        cluster.start_worker(node, DOCKER_HOSTS=way.url)
        # What it prints without a reader makes the engine report 126 for it.
        end = "exit 6" if silent else "echo unheard; exit 6"
        target = container(node)
        job_id, executor_id = started(cluster, target, f"sleep 5; {end}")
        way.cut()
        result = ended(cluster, job_id, executor_id)
        assert (result["Status"], result["ExitCode"]) == ("FINISHED", 6)
        assert (result["Output"], result["OutputIncomplete"]) == ("begun\n", True)
        assert runs(node, target) == 1


@pytest.mark.engine
def test_printing_to_both_streams_without_a_reader_does_not_end_a_command(
    cluster: Cluster, container: Container, unserved: Callable[[Node], Node]
) -> None:
    """The engine loses sight of such an exec: it says 126 while it runs, and has no code at its end."""
    node = unserved(cluster.swarm.nodes[1])
    with CuttableSocket(node.run_dir / f"{uuid4().hex}.sock", node.docker_host) as way:
        cluster.start_worker(node, DOCKER_HOSTS=way.url)
        target = container(node)
        script = "sleep 3; echo unheard; echo unheard >&2; sleep 6; exit 6"
        job_id, executor_id = started(cluster, target, script)
        way.cut()
        result = ended(cluster, job_id, executor_id)
        assert (result["Status"], result["Reason"]) == ("RUNNING_FAILED", "lost")
        assert result["EndTime"] - result["StartTime"] > 9
        assert result["OutputIncomplete"] is True
        assert runs(node, target) == 1


@pytest.mark.engine
def test_an_exit_code_that_the_engine_forgets_before_the_adoption_is_known(
    cluster: Cluster,
    container: Container,
    unserved: Callable[[Node], Node],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So long it is silent before its events are over, here.
    monkeypatch.setattr("worker.engine.client._TIMEOUT_SECONDS", 2)
    node = unserved(cluster.swarm.nodes[1])
    dying = cluster.start_worker(node)
    target = container(node)
    job_id, executor_id = started(cluster, target, "sleep 2; echo unheard; sleep 2; exit 6")
    dying.process.kill()
    dying.process.wait()
    engine = Engine(node.docker_host, pool=1)
    engine.connect()
    exec_id = cluster.inspect(job_id, executor_id)[0]["ID"]
    wait_until(lambda: not engine.inspect(exec_id)["Running"], 30, lambda: "it does not end")
    served = dying.log.read_text().count(SERVING)
    cluster.start_worker(node)
    wait_until(lambda: dying.log.read_text().count(SERVING) > served, 60, dying.log.read_text)
    for _ in range(2 * RECORDED_EVENTS):
        engine.create(target["ContainerId"], ["true"], [], "", False)
    assert exec_id not in [told for told, _, _ in engine.follow_ends(0)]
    result = ended(cluster, job_id, executor_id, ADOPTION_SECONDS)
    assert (result["Status"], result["ExitCode"], runs(node, target)) == ("FINISHED", 6, 1)


@pytest.mark.engine
def test_a_second_sigterm_lets_go_and_the_next_worker_goes_on(
    cluster: Cluster, container: Container
) -> None:
    node = cluster.swarm.nodes[2]
    target = container(node)
    job_id, executor_id = started(cluster, target, "sleep 8; exit 4")
    old = cluster.workers[node.name].process
    old.send_signal(signal.SIGTERM)
    time.sleep(1)  # Two at once would count as one.
    assert old.poll() is None
    old.send_signal(signal.SIGTERM)
    assert old.wait(20) == 1
    cluster.start_worker(node)
    # At once: a dead worker's message would stay invisible for up to a minute, and the end with it.
    result = ended(cluster, job_id, executor_id, 30)
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 4)
    assert result["OutputIncomplete"] is True
    assert runs(node, target) == 1


def test_a_third_sigterm_ends_the_worker_even_if_aws_hangs(
    cluster: Cluster, container: Container
) -> None:
    node = cluster.swarm.nodes[2]
    target = container(node)
    job_id, executor_id = started(cluster, target, "sleep 5; exit 2")
    old = cluster.workers[node.name].process
    node.disconnect()
    try:
        for _ in range(3):
            old.send_signal(signal.SIGTERM)
            time.sleep(1)
        assert old.wait(20) == 1
    finally:
        node.reconnect()
    cluster.start_worker(node)
    result = ended(cluster, job_id, executor_id, ADOPTION_SECONDS)
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 2)
    assert runs(node, target) == 1


@pytest.mark.parametrize("loop", ["lease", "settler", "heartbeat", "uploads", "wishes", "consumer"])
def test_a_worker_whose_loop_dies_names_it_and_ends_and_the_next_goes_on(
    cluster: Cluster, container: Container, tmp_path: Path, loop: str
) -> None:
    node = cluster.swarm.nodes[2]
    target = container(node)
    fatal = tmp_path / "fatal"
    cluster.workers[node.name].process.kill()
    cluster.workers[node.name].process.wait()
    time.sleep(1.5)  # Its last poll, of 1 s, would take the message with it for a minute.
    mortal = cluster.start_worker(node, ("tests.swarm.mortal", loop, str(fatal)))
    job_id, executor_id = started(cluster, target, "sleep 8; exit 4")
    written = mortal.log.stat().st_size
    fatal.touch()
    assert mortal.process.wait(10) == 1
    assert f'"loops": ["{loop}' in mortal.log.read_text()[written:]
    cluster.start_worker(node)
    result = ended(cluster, job_id, executor_id, 30)
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 4)
    assert runs(node, target) == 1


def health(node: Node) -> tuple[int, str]:
    return worker_answer(node, "/healthz")


def test_a_worker_reports_its_health_and_its_counters(cluster: Cluster) -> None:
    node = cluster.swarm.nodes[0]
    wait_until(lambda: health(node) == (200, "ok\n"), 20, lambda: "not healthy")
    before = samples(node)
    cluster.run("sh -c 'echo four; exit 1'", cluster.targets(node))
    cluster.run("true", cluster.targets(node))
    count = len(cluster.targets(node))

    def grown(name: str) -> float:
        return samples(node)[name] - before.get(name, 0)

    assert grown('appjobs_finished_total{outcome="exit_code"}') == count
    assert grown('appjobs_finished_total{outcome="succeeded"}') == count
    assert grown("appjobs_output_bytes_total") == 5 * count
    label = f'{{node="{node.node_id}"}}'
    assert samples(node)[f"appjobs_in_flight{label}"] == 0
    assert 0 <= samples(node)[f"appjobs_last_poll_age_seconds{label}"] < 60
    assert worker_answer(node, "/other")[0] == 404


def samples(node: Node) -> dict[str, float]:
    """The metrics, by name and labels."""
    lines = [line for line in worker_answer(node, "/metrics")[1].splitlines() if line[:1] != "#"]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
