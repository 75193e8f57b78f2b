"""What `make run` starts on this machine: AWS, the API, a worker, the sample containers."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.project import LOCAL
from dev import sample
from dev.addresses import LOOPBACK, answers, check_port
from dev.aws import Aws
from dev.children import Child, start_child
from dev.engine import ensure_engine, node_id
from dev.errors import LocalError
from dev.private_files import write_private
from dev.signals import Signals
from dev.stack import PORT, start_aws
from dev.tokens import bearer, make_token, revoke_token
from dev.waiting import wait_for

STATE = LOCAL / "run.json"
ENVIRONMENT = LOCAL / "env"
CONTAINERS = 2
TOKEN_NAME = "make run"
TOKEN_OPTIONS = ("--role", "admin", "--root", "--days", "30")
START_SECONDS = 60.0
DRAIN_SECONDS = 30.0


@dataclass(frozen=True)
class Ports:
    """Where the API and AWS listen."""

    api: int
    aws: int

    @classmethod
    def from_environment(cls) -> "Ports":
        """Reads API_PORT and AWS_PORT. Raises LocalError if one is not a port number."""
        return cls(_port("API_PORT", 8000), _port("AWS_PORT", PORT))

    def check(self) -> None:
        """Raises LocalError, which says what to do, if one is taken."""
        for name, port in (("API_PORT", self.api), ("AWS_PORT", self.aws)):
            try:
                check_port(LOOPBACK, port)
            except LocalError as error:
                raise LocalError(f"{error}: `make run {name}={port + 1}` takes another") from None


class System:
    """What runs, and how to stop it: what was started last stops first."""

    def __init__(self, ports: Ports, signals: Signals) -> None:
        self.ports = ports
        self.signals = signals
        self.api_url = f"http://{LOOPBACK}:{ports.api}"
        self.token = ""
        self.containers: list[str] = []
        self.node = ""
        self.watched: list[tuple[str, Child | Aws]] = []
        self._stops: list[tuple[str, Callable[[], None]]] = []

    def start(self) -> None:
        """Starts all of it. Raises LocalError; call `stop` then too."""
        self.ports.check()
        aws = self._start_aws()
        # Only the hash of the last run's token is left, so nobody can use that one any more.
        revoke_token(aws.environment, TOKEN_NAME)
        self.token = make_token(aws.environment, TOKEN_NAME, *TOKEN_OPTIONS)
        host = self._start_containers()
        environment = {**aws.environment, **self._worker_settings(host)}
        self._start_api(environment)
        self._start_upkeep(environment)
        self._start_worker(environment, aws)
        write_environment(environment)

    def check(self) -> None:
        """Raises LocalError if one of the processes has ended."""
        for _, process in self.watched:
            process.check()

    def announce(self) -> None:
        """Writes for other tools where everything is."""
        pids = {name: process.pid for name, process in self.watched}
        state = {
            "ApiUrl": self.api_url,
            "Token": self.token,
            "AwsEndpoint": self.aws.endpoint,
            "NodeId": self.node,
            "Containers": self.containers,
            "Pids": {name: pids[name] for name in ("api", "worker", "aws")},
        }
        write_private(STATE, json.dumps(state, indent=2) + "\n")

    def stop(self) -> None:
        """Stops what was started, the last first, and says so."""
        STATE.unlink(missing_ok=True)
        while self._stops:
            name, stop = self._stops.pop()
            try:
                stop()
            except (LocalError, OSError) as error:
                say(f"could not stop {name}: {error}")
            else:
                say(f"stopped {name}")

    def _start_aws(self) -> Aws:
        if os.environ.get("AWS") == "localstack-pypi":
            # Any page in the developer's browser could read and write it, and so start commands.
            raise LocalError(
                "AWS=localstack-pypi is only for tests: its database refuses nobody. Leave AWS unset"
            )
        say(f"AWS on port {self.ports.aws}")
        self.aws = start_aws(LOCAL / "aws", self.ports.aws, LOOPBACK)
        self._started("aws", self.aws, self.aws.stop)
        return self.aws

    def _start_containers(self) -> str:
        say("the Docker Engine and the sample containers")
        host, engine = ensure_engine(LOCAL)
        if engine:
            self._stops.append(("dockerd", engine.stop))
        self.node = node_id(host)
        self._stops.append(("the sample containers", lambda: sample.stop_containers(host)))
        self.containers = sample.ensure_containers(host, CONTAINERS)
        return host

    def _worker_settings(self, host: str) -> dict[str, str]:
        return {"DOCKER_HOSTS": host, "SPOOL_DIR": str(LOCAL / "spool"), "POLL_SECONDS": "2"}

    def _start_api(self, environment: dict[str, str]) -> None:
        say(f"the API at {self.api_url}")
        options = ["--host", LOOPBACK, "--port", str(self.ports.api)]
        command = [sys.executable, "-m", "dev.gateway", *options]
        api = start_child("api", command, environment, LOCAL / "api.log")
        self._started("api", api, api.stop)
        url = f"{self.api_url}/api/jobs"
        headers = bearer(self.token)
        wait_for(lambda: answers(url, headers), START_SECONDS, "the API", api)

    def _start_upkeep(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "dev.upkeep"]
        child = start_child("upkeep", command, environment, LOCAL / "upkeep.log")
        self._started("upkeep", child, child.stop)

    def _start_worker(self, environment: dict[str, str], aws: Aws) -> None:
        say(f"the worker of node {self.node}")
        since = time.time()
        command = [sys.executable, "-m", "worker"]
        worker = start_child("worker", command, environment, LOCAL / "worker.log")
        self._started("worker", worker, lambda: drain(worker, self.signals))
        nodes = aws.client("dynamodb")
        table = f"{aws.environment['APPJOBS_PREFIX']}-nodes"
        key = {"NodeId": {"S": self.node}}

        def announced() -> bool:
            item = nodes.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
            # The item of an earlier run is still there.
            return item is not None and float(item["Heartbeat"]["N"]) >= int(since)

        wait_for(announced, START_SECONDS, f"the worker to announce {self.node}", worker, aws)

    def _started(self, name: str, process: Child | Aws, stop: Callable[[], None]) -> None:
        self.watched.append((name, process))
        self._stops.append((name, stop))


def drain(worker: Child, signals: Signals) -> None:
    """Stops the worker. It may finish its commands, but not for long, and not if a signal hurries us."""
    worker.process.send_signal(signal.SIGTERM)
    wishes = signals.wishes
    deadline = time.monotonic() + DRAIN_SECONDS
    while worker.process.poll() is None and signals.wishes == wishes:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    # The second SIGTERM makes it let go of what is unfinished; then it is killed.
    worker.stop(5)


def write_environment(environment: dict[str, str]) -> None:
    """Writes the environment that another worker needs, for a shell to read."""
    lines = [f"{key}={_quoted(value)}\n" for key, value in sorted(environment.items())]
    write_private(ENVIRONMENT, "".join(lines))


def say(line: str) -> None:
    """Prints a line of progress."""
    print(f"· {line}", flush=True)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LocalError(f"{name} must be a port number, not {text!r}")
    return int(text)
