"""The test swarm itself: real engines, faults as the tests inject them, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deploy.project import ROOT
from dev.engine import EngineError, docker, engine_answers
from dev.swarm import Node, Swarm, SwarmError
from dev.swarm_guard import NETNS_DIR, Footprint, process_ids
from tests.support.background import in_background
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the test swarm needs root")


def command_lines() -> dict[int, str]:
    lines = {}
    for pid in process_ids():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            lines[pid] = command.replace(b"\0", b" ").decode(errors="replace")
    return lines


def leftovers(footprint: Footprint) -> list[str]:
    """What is still on the machine of a swarm."""
    names = [str(footprint.run_dir), str(footprint.directory), footprint.prefix]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout.splitlines()
    found = [line for line in [*mounts, *links] if any(name in line for name in names)]
    found += [line for line in command_lines().values() if any(name in line for name in names)]
    found += [str(path) for path in NETNS_DIR.glob(f"{footprint.prefix}*")]
    # os.walk skips what vanishes while it walks; Path.glob raises.
    for folder, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{folder}/{name}" for name in folders if name == footprint.prefix]
    paths = (footprint.run_dir, footprint.directory)
    return found + [str(path) for path in paths if path.exists()]


def dead_shims() -> set[str]:
    """Sockets that killed shims left. Those of other swarms come and go in the meantime."""
    return {str(path) for path in Path("/run/containerd/s").glob("*") if not listens(path)}


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        except FileNotFoundError:
            return True  # Its own shim removed it while we looked: nothing is left.
    return True


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with Swarm(tmp_path_factory.mktemp("module") / "swarm") as running:
        yield running
    assert leftovers(running.footprint) == []


@pytest.fixture
def worker_node(swarm: Swarm) -> Node:
    return swarm.nodes[-1]


def test_every_node_has_tasks_and_an_identity_of_its_own(swarm: Swarm) -> None:
    assert sum(len(node.containers()) for node in swarm.nodes) == 5
    assert all(node.containers() for node in swarm.nodes)
    assert len({node.node_id for node in swarm.nodes}) == 3
    listing = docker(swarm.manager.docker_host, "node", "ls", "--format", "{{.Hostname}}")
    assert sorted(listing.split()) == ["node1", "node2", "node3"]


def test_an_exec_runs_in_a_task(worker_node: Node) -> None:
    container = worker_node.containers()[0]
    run = docker(worker_node.docker_host, "exec", "--user", "app", container, "id", "-un")
    assert run == "app"


def test_a_process_on_a_node_reaches_the_host_and_the_other_nodes(
    swarm: Swarm, worker_node: Node
) -> None:
    for address in (swarm.host_address, swarm.manager.address):
        ping = worker_node.run_command(["busybox", "ping", "-c", "1", "-W", "2", address])
        assert subprocess.run(ping, stdout=subprocess.DEVNULL).returncode == 0


def test_a_disconnected_node_reaches_nobody_until_reconnected(
    swarm: Swarm, worker_node: Node
) -> None:
    ping = worker_node.run_command(["busybox", "ping", "-c", "1", "-W", "1", swarm.host_address])
    worker_node.disconnect()
    assert subprocess.run(ping, stdout=subprocess.DEVNULL).returncode != 0
    worker_node.reconnect()
    wait_until(lambda: subprocess.run(ping, stdout=subprocess.DEVNULL).returncode == 0, 60)


def test_a_paused_engine_answers_once_resumed(worker_node: Node) -> None:
    worker_node.pause_engine()
    with pytest.raises(EngineError, match="did not end within 1 s"):
        docker(worker_node.docker_host, "ps", timeout=1)
    worker_node.resume_engine()
    assert engine_answers(worker_node.docker_host)


def test_a_killed_engine_starts_again_as_the_same_node(swarm: Swarm, worker_node: Node) -> None:
    before = worker_node.node_id
    worker_node.kill_engine()
    assert not engine_answers(worker_node.docker_host)
    worker_node.start_engine()
    assert docker(worker_node.docker_host, "info", "-f", "{{.Swarm.NodeID}}") == before
    docker(swarm.manager.docker_host, "service", "update", "--force", "--detach", "2048_2048")
    swarm.wait_for_tasks()


@contextmanager
def harness(directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, as a script starts it in the background; killed at the end of the block."""
    command = [sys.executable, "-m", "dev.swarm", "--dir", str(directory), *options]
    with in_background(command, ROOT, subprocess.PIPE) as process:
        yield process


def read_until(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended before it said {text!r}")


def kill_guard(directory: Path) -> None:
    guard_command = f"dev.swarm_guard {directory}"
    [guard] = [pid for pid, line in command_lines().items() if guard_command in line]
    os.kill(guard, signal.SIGKILL)


@pytest.mark.parametrize("moment", [b"network", b"engines", b"forming", b"tasks", b"Ctrl-C"])
def test_nothing_is_left_of_a_killed_harness(tmp_path: Path, moment: bytes) -> None:
    before = dead_shims()
    with harness(tmp_path / "swarm") as process:
        read_until(process, moment)
    wait_until(lambda: leftovers(Footprint(tmp_path / "swarm")) == [], 60)
    assert dead_shims() <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sent_twice_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with harness(tmp_path / "swarm", "--nodes", "1", "--tasks", "1") as process:
        read_until(process, b"Ctrl-C")
        os.killpg(process.pid, number)
        read_until(process, b"removing")
        os.killpg(process.pid, number)
        assert process.wait(60) == 0
    wait_until(lambda: leftovers(Footprint(tmp_path / "swarm")) == [], 60)


def test_a_start_cleans_up_what_a_killed_guard_left(tmp_path: Path) -> None:
    directory = tmp_path / "swarm"
    with harness(directory) as process:
        read_until(process, b"Ctrl-C")
        kill_guard(directory)
    assert leftovers(Footprint(directory))
    with Swarm(directory, nodes=1, tasks=1) as again:
        assert again.nodes[0].containers()
    assert leftovers(Footprint(directory)) == []


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("keep")
    with pytest.raises(SwarmError, match="no test swarm"):
        Swarm(tmp_path).start()
    assert mine.read_text() == "keep"
