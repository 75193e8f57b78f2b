"""The worker as people run it: `worker/Dockerfile` built, `worker/stack.yml` deployed on a swarm."""

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deploy.project import ROOT
from dev import image
from dev.engine import docker, docker_bytes
from dev.swarm_node import Node
from tests.support.waiting import wait_until
from tests.swarm.conftest import END_SECONDS, Cluster, announced, system_on

# Two names of one image: it is a service's new image that Swarm updates.
OLD, NEW = "appjobs-worker:1", "appjobs-worker:2"
STACK, SERVICE = "appjobs", "appjobs_worker"
# So many containers the application has.
TASKS = 5
SECRET = "aws-credentials"
SOCKET = "/var/run/docker.sock"
# Every command appends the mark of its start to this file of its container.
MARKS = "/tmp/image"
# A worker is healthy at its first check, after ten seconds.
UP_SECONDS = 180
UPDATE_SECONDS = 300
# What takes longer than the update of one node.
LONG_SECONDS = 30
# A minute passes until messages of a dead worker are visible again.
ADOPTION_SECONDS = 150
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Service:
    """The stack on the swarm, and the system that its workers serve."""

    system: Cluster
    folder: Path

    @property
    def manager(self) -> str:
        return self.system.swarm.manager.docker_host

    def deploy(self, name: str) -> None:
        """What docs/deployment.md tells people to do, but for the registry."""
        environment = {
            **os.environ,
            **self.system.aws.environment,
            "IMAGE": name,
            "DOCKER_GID": str(socket_of(self.system.swarm.manager).stat().st_gid),
        }
        files = ("-c", str(ROOT / "worker/stack.yml"), "-c", str(self._override()))
        command = ["docker", "-H", self.manager, "stack", "deploy", *files, "--resolve-image"]
        done = subprocess.run(
            [*command, "never", STACK], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def _override(self) -> Path:
        """What is different here: AWS is elsewhere, and each node's engine has a socket of its own."""
        run_dir = self.system.swarm.footprint.run_dir
        mount = {"type": "bind", "target": SOCKET}
        mount["source"] = str(run_dir / "{{.Node.Hostname}}" / "docker.sock")
        settings = {"AWS_ENDPOINT_URL": self.system.aws.endpoint, "POLL_SECONDS": "1"}
        worker = {"environment": settings, "volumes": [mount]}
        override = self.folder / "override.yml"
        override.write_text(yaml.safe_dump({"version": "3.8", "services": {"worker": worker}}))
        return override

    def containers(self, node: Node, *options: str) -> list[str]:
        """The ids of the node's running workers."""
        return self._list(node, "--quiet", "--no-trunc", *options)

    def _list(self, node: Node, *options: str) -> list[str]:
        label = f"label=com.docker.swarm.service.name={SERVICE}"
        return docker(node.docker_host, "ps", "--filter", label, *options).split()

    def tasks(self) -> str:
        """What became of the service's tasks."""
        return docker(self.manager, "service", "ps", "--no-trunc", SERVICE)

    def images(self) -> set[str]:
        """Of which image the running workers are."""
        return {name for node in self.nodes for name in self._list(node, "--format", "{{.Image}}")}

    def log(self) -> str:
        """What all workers have said so far: their standard error."""
        command = ["docker", "-H", self.manager, "service", "logs", "--raw", SERVICE]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    def updated(self) -> bool:
        """Whether Swarm has completed the latest update."""
        state = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        status = docker(self.manager, "service", "inspect", "--format", state, SERVICE)
        return status == "completed"

    def healthy(self) -> bool:
        """Whether each node has one worker that is healthy."""
        found = [self.containers(node, "--filter", "health=healthy") for node in self.nodes]
        return all(len(containers) == 1 for containers in found)

    def gone(self) -> bool:
        """Whether no worker runs any more."""
        return not any(self.containers(node) for node in self.nodes)

    @property
    def nodes(self) -> list[Node]:
        return self.system.swarm.nodes


def socket_of(node: Node) -> Path:
    """Where the node's engine listens."""
    return Path(node.docker_host.removeprefix("unix://"))


@dataclass(frozen=True)
class Start:
    """One start, and how its command ends."""

    mark: str
    exit_code: int
    job_id: str
    executor_id: str


class Load:
    """Jobs on all containers, each with a mark and an exit code of its own."""

    def __init__(self, system: Cluster) -> None:
        self.starts: list[Start] = []
        self._system = system

    def start(self, seconds: int) -> None:
        """Starts a job whose commands take so long.

        They print their mark at once, and then nothing: cut off, they still keep their exit codes.
        """
        mark, exit_code = f"mark-{len(self.starts)}-{time.time_ns()}", len(self.starts) % 7
        script = f"echo {mark} | tee -a {MARKS}; sleep {seconds}; exit {exit_code}"
        job_id = self._system.create(f"sh -c '{script}'")
        executor_id = self._system.start(job_id, self._system.targets())
        self.starts.append(Start(mark, exit_code, job_id, executor_id))

    def go_on_until(self, over: threading.Event) -> None:
        """Starts a job each second, of up to five."""
        while not over.wait(1):
            self.start(len(self.starts) % 6)

    def wait_until_running(self) -> None:
        """Returns once all commands of the latest start run."""
        latest = self.starts[-1]

        def running() -> bool:
            results = self._system.inspect(latest.job_id, latest.executor_id)
            return all(result["Status"] == "RUNNING" for result in results)

        wait_until(running, END_SECONDS, lambda: f"not running: {latest}")

    def judge(self) -> list[str]:
        """Waits for the ends: in each container each command ran once, and ended as it did.

        Returns what was stored of their output.
        """
        results = [
            (start, result)
            for start in self.starts
            for result in self._system.end(start.job_id, start.executor_id, ADOPTION_SECONDS)
        ]
        ran = self._ran()
        found = [
            (start.mark, result.get("ExitCode"), ran[result["ContainerId"]][start.mark])
            for start, result in results
        ]
        assert found == [(start.mark, start.exit_code, 1) for start, _ in results]
        return [result["Output"] for _, result in results]

    def _ran(self) -> dict[str, Counter[str]]:
        """How often each container has each mark."""
        return {
            container: Counter(docker(node.docker_host, "exec", container, "cat", MARKS).split())
            for node in self._system.swarm.nodes
            for container in node.containers()
        }


@pytest.fixture(scope="module")
def image_on_all_nodes(cluster: Cluster) -> None:
    """The image, in the place of a registry that all nodes reach."""
    first, *others = cluster.swarm.nodes
    image.build(first.docker_host, OLD, first.run_command)
    docker(first.docker_host, "tag", OLD, NEW)
    archive = docker_bytes(first.docker_host, "save", OLD, NEW)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: docker(node.docker_host, "load", input=archive), others))


@pytest.fixture(scope="module")
def service(
    cluster: Cluster, image_on_all_nodes: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The stack, deployed; all its workers healthy."""
    folder = tmp_path_factory.mktemp("image")
    with system_on(cluster.swarm, folder) as system:
        service = Service(system, folder)
        docker(service.manager, "secret", "create", SECRET, "-", input=keys(system))
        try:
            service.deploy(OLD)
            wait_until(service.healthy, UP_SECONDS, service.tasks)
            wait_until(lambda: announced(system), END_SECONDS, service.log)
            yield service
        finally:
            docker(service.manager, "stack", "rm", STACK)
            wait_until(service.gone, END_SECONDS, lambda: "a worker does not end")
            docker(service.manager, "secret", "rm", SECRET)


def keys(system: Cluster) -> bytes:
    """The credentials file that the workers get as a secret."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    lines = [f"{name.lower()} = {system.aws.environment[name]}" for name in names]
    return "\n".join(["[default]", *lines, ""]).encode()


def test_a_job_runs(service: Service) -> None:
    results = service.system.run("sh -c 'echo hello; exit 3'")
    assert [result["ExitCode"] for result in results] == [3] * TASKS
    assert [result["Output"] for result in results] == ["hello\n"] * TASKS


def test_its_container_may_do_little(service: Service) -> None:
    node = service.system.swarm.manager
    (container,) = service.containers(node)
    rights = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}"
    group = socket_of(node).stat().st_gid
    found = docker(node.docker_host, "inspect", "--format", rights, container)
    assert found == f"true [ALL] 10001:{group}"
    find = ("find", "/", "-xdev", "-type", "f", "-perm", "/6000")
    words = ("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", find[0], OLD)
    assert docker(node.docker_host, *words, *find[1:]) == ""


def test_an_update_under_load_loses_nothing_and_runs_nothing_twice(service: Service) -> None:
    load = Load(service.system)
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        # The old workers end it, while the new ones take what comes.
        load.start(LONG_SECONDS)
        starting = pool.submit(load.go_on_until, over)
        try:
            service.deploy(NEW)
            wait_until(service.updated, UPDATE_SECONDS, service.tasks)
        finally:
            over.set()
        starting.result()
    outputs = load.judge()
    assert outputs == [f"{start.mark}\n" for start in load.starts for _ in range(TASKS)]
    wait_until(lambda: service.images() == {NEW}, END_SECONDS, service.tasks)
    assert '"adopting"' not in service.log()


def test_commands_of_killed_workers_are_adopted_and_run_once(service: Service) -> None:
    load = Load(service.system)
    load.start(LONG_SECONDS)
    load.wait_until_running()
    killed = {container for node in service.nodes for container in service.containers(node)}
    for node in service.nodes:
        docker(node.docker_host, "kill", *service.containers(node))
    load.judge()
    assert service.log().count('"adopting"') >= TASKS
    wait_until(service.healthy, UP_SECONDS, service.tasks)
    assert killed.isdisjoint(
        container for node in service.nodes for container in service.containers(node)
    )
