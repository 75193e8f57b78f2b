"""A real Docker Swarm on one machine: each node is an engine in its own network namespace.

    python -m dev.swarm [--nodes 3] [--tasks 5] [--dir .local/swarm]

The nodes' links meet in a bridge, in one more namespace: the hub. The host forwards none of their
traffic. So its firewall does not matter, whatever another engine on the host does to its rules.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from dev import sample
from dev.engine import docker, docker_bytes, node_id
from dev.errors import LocalError
from dev.packages import install_missing
from dev.swarm_guard import READY, Footprint
from dev.swarm_node import HUB, Node, SwarmError, ip, run
from dev.waiting import wait_for

__all__ = ["Node", "Swarm", "SwarmError"]

PROGRAMS = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
HOST_NUMBER = 1
FIRST_NODE_NUMBER = 11
SWARM_PORT = 2377
READY_SECONDS = 60.0
# Most of it goes by while files of images are removed.
STOP_SECONDS = 300.0


class Swarm:
    """A swarm of `nodes` engines that runs the sample service with `tasks` tasks.

    Use it as a context manager, or call `start` and `stop`. If this process is killed, the swarm is
    still removed, and `directory` with it. The directory has everything except the sockets.
    """

    def __init__(
        self,
        directory: Path = Path(".local/swarm"),
        nodes: int = 3,
        tasks: int = 5,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.footprint = Footprint(directory.resolve())
        self.tasks = tasks
        self.nodes = [self._node(number) for number in range(1, nodes + 1)]
        self._progress = progress
        self._guard: subprocess.Popen[str] | None = None

    @property
    def host_address(self) -> str:
        """Where processes on the nodes reach those of the host."""
        return self.footprint.address(HOST_NUMBER)

    @property
    def manager(self) -> Node:
        """The swarm's only manager, which is a worker too."""
        return self.nodes[0]

    def start(self) -> None:
        """Starts the swarm and waits until its tasks run, at least one on each node.

        Raises SwarmError or LocalError, after removing what it had started.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Removes the swarm. Raises SwarmError if something of it is left; the guard says what."""
        if self._guard is None:
            return
        self._progress("removing the swarm")
        guard, self._guard = self._guard, None
        guard.communicate(timeout=STOP_SECONDS)  # closes its input, its sign to clean up
        for node in self.nodes:
            node.reap_engine()
        if guard.returncode:
            raise SwarmError("the test swarm's clean-up failed")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for_tasks(self) -> None:
        """Waits until all tasks run, at least one on each node (if there are enough tasks).

        Raises LocalError if they do not within a minute.
        """
        wait_for(self._tasks_run, READY_SECONDS, f"{self.tasks} running tasks")

    def _node(self, number: int) -> Node:
        name = f"node{number}"
        return Node(
            name=name,
            netns=self.footprint.netns(name),
            address=self.footprint.address(FIRST_NODE_NUMBER + number - 1),
            docker_host=f"unix://{self.footprint.run_dir / name / 'docker.sock'}",
            footprint=self.footprint,
        )

    def _start(self) -> None:
        if os.geteuid() != 0:
            raise SwarmError("the test swarm needs root: network namespaces and engines")
        install_missing(PROGRAMS, self.footprint.directory.parent)
        self._start_guard()
        self._progress("building the network")
        self._build_network()
        self._progress(f"starting {len(self.nodes)} engines")
        self._start_engines()
        self._progress("forming the swarm")
        self._form_swarm()
        self._progress(f"starting {self.tasks} tasks")
        self._start_service()
        self.wait_for_tasks()

    def _start_guard(self) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "dev.swarm_guard", str(self.footprint.directory)],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._guard.stdout
        if self._guard.stdout.readline().strip() != READY:
            self._guard.communicate()
            self._guard = None
            raise SwarmError(f"no test swarm can start in {self.footprint.directory}")

    def _build_network(self) -> None:
        hub, host_link = self.footprint.netns(HUB), self.footprint.prefix
        ip("netns", "add", hub)
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        ip("link", "add", host_link, "type", "veth", "peer", "name", "host", "netns", hub)
        ip("-n", hub, "link", "set", "host", "master", "bridge", "up")
        ip("address", "add", f"{self.host_address}/24", "dev", host_link)
        ip("link", "set", host_link, "up")
        for node in self.nodes:
            self._wire(node)

    def _wire(self, node: Node) -> None:
        hub = self.footprint.netns(HUB)
        inside = ("-n", node.netns)
        ip("netns", "add", node.netns)
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", node.name, "netns", hub)
        ip("-n", hub, "link", "set", node.name, "master", "bridge", "up")
        ip(*inside, "address", "add", f"{node.address}/24", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        # No default route: it would lead nowhere, and an engine that looks for an image in a
        # registry should learn so at once, not when the lookup of the registry's name times out.
        self._name_host(node)

    def _name_host(self, node: Node) -> None:
        node.run_dir.mkdir(parents=True)
        handle = node.run_dir / "uts"
        handle.touch()
        run("unshare", f"--uts={handle}", "hostname", node.name)

    def _start_engines(self) -> None:
        for node in self.nodes:
            node.launch_engine()
        for node in self.nodes:
            node.wait_for_engine()

    def _form_swarm(self) -> None:
        manager = self.manager
        sample.ensure_image(manager.docker_host)
        docker(manager.docker_host, "swarm", "init", *_addresses(manager))
        token = docker(manager.docker_host, "swarm", "join-token", "--quiet", "worker")
        image = docker_bytes(manager.docker_host, "save", sample.IMAGE)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: self._join(node, token, image), self.nodes[1:]))
        for node in self.nodes:
            node.node_id = node_id(node.docker_host)
        # A service created earlier would have all its tasks on the nodes that came first.
        wait_for(self._nodes_ready, READY_SECONDS, "all nodes to be ready")

    def _join(self, node: Node, token: str, image: bytes) -> None:
        docker(node.docker_host, "load", input=image)
        join = ("swarm", "join", "--token", token, *_addresses(node))
        docker(node.docker_host, *join, f"{self.manager.address}:{SWARM_PORT}")

    def _nodes_ready(self) -> bool:
        states = docker(self.manager.docker_host, "node", "ls", "--format", "{{.Status}}").split()
        return states == ["Ready"] * len(self.nodes)

    def _start_service(self) -> None:
        docker(
            self.manager.docker_host,
            *("service", "create", "--detach", "--quiet", "--no-resolve-image"),
            *("--name", sample.SERVICE, "--replicas", str(self.tasks)),
            *("--label", sample.STACK_LABEL, "--container-label", sample.STACK_LABEL),
            # As PID 1, the sample's sleep has no handler for SIGTERM.
            *("--stop-signal", "KILL", sample.IMAGE),
        )

    def _tasks_run(self) -> bool:
        running = [len(node.containers()) for node in self.nodes]
        return sum(running) == self.tasks and (min(running) > 0 or self.tasks < len(self.nodes))


def _addresses(node: Node) -> tuple[str, ...]:
    return ("--advertise-addr", node.address, "--listen-addr", f"{node.address}:{SWARM_PORT}")


def _table(swarm: Swarm) -> str:
    row = "{:<7}  {:<25}  {:<40}  {}".format
    lines = [row("NODE", "NODE ID", "DOCKER_HOST", "CONTAINERS")]
    for node in swarm.nodes:
        containers = " ".join(container[:12] for container in node.containers())
        lines.append(row(node.name, node.node_id, node.docker_host, containers))
    return "\n".join(lines)


def _examples(swarm: Swarm) -> str:
    node = swarm.nodes[-1]
    inside = " ".join(node.run_command(["ip", "address"]))
    return (
        f"The nodes reach this host at {swarm.host_address}. Try:\n"
        f"  docker -H {swarm.manager.docker_host} node ls\n"
        f"  docker -H {node.docker_host} exec {node.containers()[0][:12]} hostname\n"
        f"  {inside}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dev.swarm", description="Run a test swarm until Ctrl-C."
    )
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path(".local/swarm"))
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run a swarm until SIGINT or SIGTERM; returns the exit code."""
    # SIGINT too: a shell has what it starts in the background ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    options = _options()
    try:
        with Swarm(options.dir, options.nodes, options.tasks, progress=_say) as swarm:
            _say(f"\n{_table(swarm)}\n\n{_examples(swarm)}\n\nCtrl-C stops and removes the swarm.")
            signal.pause()
    except KeyboardInterrupt:
        pass  # a second one finds the guard at work, which goes on
    except LocalError as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
