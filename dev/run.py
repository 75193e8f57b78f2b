"""`make run`: the whole system on this machine and a sample job through it, until it is stopped."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from deploy.project import LOCAL
from dev import sample
from dev.api import Api
from dev.engine import EngineError, ensure_engine, node_id
from dev.stack import (
    PORT,
    Aws,
    Child,
    StackError,
    answers,
    check_port,
    close_local,
    go_without_proxy,
    start_aws,
    start_child,
    wait_until,
    write_private,
)
from dev.tokens import bearer, make_token, revoke_token

HOST = "127.0.0.1"
STATE = LOCAL / "run.json"
ENVIRONMENT = LOCAL / "env"
CONTAINERS = 2
UNDER_WAY = ("STARTING", "CREATED", "RUNNING")
TOKEN_NAME = "make run"
TOKEN_OPTIONS = ("--role", "admin", "--root", "--days", "30")
START_SECONDS = 60.0
JOB_SECONDS = 60.0
DRAIN_SECONDS = 30.0
# `make` and a process group's signal may both bring the same wish.
SAME_WISH_SECONDS = 1.0


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP came: stop all."""


@dataclass
class Signals:
    """The first signal interrupts the start or the serving; the later ones hurry the stopping."""

    wishes: int = 0
    stopping: bool = False
    _last: float = field(default_factory=lambda: -SAME_WISH_SECONDS)

    def install(self) -> None:
        # SIGINT too: a shell has what it starts in the background ignore it.
        # The third comes when a terminal is closed.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        last, self._last = self._last, time.monotonic()
        if self._last - last < SAME_WISH_SECONDS:
            return
        self.wishes += 1
        if not self.stopping:
            self.stopping = True
            raise Interrupted


@dataclass(frozen=True)
class Ports:
    """Where the API and AWS listen."""

    api: int
    aws: int

    @classmethod
    def from_environment(cls) -> "Ports":
        """Reads API_PORT and AWS_PORT. Raises StackError when one is no number."""
        return cls(_port("API_PORT", 8000), _port("AWS_PORT", PORT))

    def check(self) -> None:
        """Raises StackError, saying what to do, when one is taken."""
        for name, port in (("API_PORT", self.api), ("AWS_PORT", self.aws)):
            try:
                check_port(HOST, port)
            except StackError as error:
                raise StackError(f"{error}: `make run {name}={port + 1}` takes another") from None


class System:
    """What runs, and how to stop it: in the reverse order of its start."""

    def __init__(self, ports: Ports, signals: Signals) -> None:
        self.ports = ports
        self.signals = signals
        self.api_url = f"http://{HOST}:{ports.api}"
        self.token = ""
        self.containers: list[str] = []
        self.node = ""
        self.watched: list[tuple[str, Child | Aws]] = []
        self._stops: list[tuple[str, Callable[[], None]]] = []

    def start(self) -> None:
        """Starts all of it. Raises StackError or EngineError; `stop` is needed also then."""
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
        """Raises StackError when one of the processes is over."""
        for _, process in self.watched:
            process.check()

    def announce(self) -> None:
        """Tells other tools where everything is."""
        pids = {name: process.pid for name, process in self.watched}
        state = {
            "ApiUrl": self.api_url,
            "Token": self.token,
            "AwsEndpoint": self._aws.endpoint,
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
            except (StackError, EngineError, OSError) as error:
                say(f"could not stop {name}: {error}")
            else:
                say(f"stopped {name}")

    def _start_aws(self) -> Aws:
        if os.environ.get("AWS") == "localstack-pypi":
            # Any page in the developer's browser could read and write it, and so start commands.
            raise StackError(
                "AWS=localstack-pypi is for tests: its database lets everybody in. Leave AWS unset"
            )
        say(f"AWS on port {self.ports.aws}")
        self._aws = start_aws(LOCAL / "aws", self.ports.aws, HOST)
        self._started("aws", self._aws, self._aws.stop)
        return self._aws

    def _start_containers(self) -> str:
        say("the Docker Engine and the sample containers")
        host, engine = ensure_engine(LOCAL)
        if engine:
            self._stops.append(("dockerd", partial(_end, engine)))
        self.node = node_id(host)
        self._stops.append(("the sample containers", lambda: sample.stop_containers(host)))
        self.containers = sample.ensure_containers(host, CONTAINERS)
        return host

    def _worker_settings(self, host: str) -> dict[str, str]:
        return {"DOCKER_HOSTS": host, "SPOOL_DIR": str(LOCAL / "spool"), "POLL_SECONDS": "2"}

    def _start_api(self, environment: dict[str, str]) -> None:
        say(f"the API at {self.api_url}")
        options = ["--host", HOST, "--port", str(self.ports.api)]
        command = [sys.executable, "-m", "dev.gateway", *options]
        api = start_child("api", command, environment, LOCAL / "api.log")
        self._started("api", api, api.stop)
        url = f"{self.api_url}/api/jobs"
        headers = bearer(self.token)
        wait_until(lambda: answers(url, headers), START_SECONDS, "the API", api)

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

        wait_until(announced, START_SECONDS, f"the worker to announce {self.node}", worker, aws)

    def _started(self, name: str, process: Child | Aws, stop: Callable[[], None]) -> None:
        self.watched.append((name, process))
        self._stops.append((name, stop))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Starts, shows, serves, stops; returns the exit code."""
    signals = Signals()
    signals.install()
    go_without_proxy(HOST)
    close_local()
    try:
        # Held until the process ends: two runs would write the same state.
        lock = lock_run()
        system = System(Ports.from_environment(), signals)
    except StackError as error:
        return fail(error)
    try:
        return serve(system)
    except Interrupted:
        say("stopping" if STATE.exists() else "interrupted; stopping what was started")
        return 0 if STATE.exists() else 130
    except (StackError, EngineError) as error:
        return fail(error)
    finally:
        signals.stopping = True
        system.stop()
        lock.close()


def serve(system: System) -> int:
    """Starts the system, runs the sample job, and watches the processes for ever."""
    system.start()
    job_id, executor_id = run_sample(system)
    system.announce()
    print(how_to_go_on(system, job_id, executor_id), flush=True)
    while True:
        system.check()
        time.sleep(0.5)


def lock_run() -> Any:
    """Takes the lock that only one run can have. Raises StackError when another has it."""
    lock = (LOCAL / "run.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StackError("`make run` is up already in this folder: stop it first") from None
    STATE.unlink(missing_ok=True)
    return lock


def drain(worker: Child, signals: Signals) -> None:
    """Stops the worker: it may finish its commands, but not for long, nor when we are hurried."""
    worker.process.send_signal(signal.SIGTERM)
    wishes = signals.wishes
    deadline = time.monotonic() + DRAIN_SECONDS
    while worker.process.poll() is None and signals.wishes == wishes:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    # The second SIGTERM makes it let go of what is unfinished; then it is killed.
    worker.stop(5)


def run_sample(system: System) -> tuple[str, str]:
    """Runs the sample job in the sample containers and prints its results and one log.

    Returns JobId and ExecutorId. Raises StackError.
    """
    api = Api(system.api_url, system.token)
    job = api.ensure(sample.JOB)
    say(f"the job {job['Name']!r}: {job['Cmd']} {' '.join(job['SecretArgs'])}")
    targets = [{"ContainerId": container, "NodeId": system.node} for container in system.containers]
    executor_id = api.start(job["JobId"], targets)
    results = wait_for_results(system, api, job["JobId"], executor_id)
    print(f"\n{table(results)}\n")
    container_id = results[0]["ContainerId"]
    print(f"The log of {container_id[:12]}:")
    print(indented(api.log(job["JobId"], executor_id, container_id)), flush=True)
    return job["JobId"], executor_id


def wait_for_results(
    system: System, api: Api, job_id: str, executor_id: str
) -> list[dict[str, Any]]:
    """Polls until every target is over; returns the results."""
    results: list[dict[str, Any]] = []

    def over() -> bool:
        results[:] = api.inspect(job_id, executor_id)["Result"]
        return all(result["Status"] not in UNDER_WAY for result in results)

    wait_until(over, JOB_SECONDS, "the sample job", *(process for _, process in system.watched))
    return results


def table(results: list[dict[str, Any]]) -> str:
    """The results, one a line."""
    rows = [("CONTAINER", "NODE", "STATUS", "EXIT", "BYTES", "OUTPUT"), *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        for row in rows
    )


def _row(result: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    output = result.get("Output") or result.get("E") or ""
    return (
        result["ContainerId"][:12],
        result["NodeId"][:12],
        result["Status"],
        str(result.get("ExitCode", "-")),
        str(result.get("OutputSize", "-")),
        (output.splitlines() or [""])[0],
    )


def how_to_go_on(system: System, job_id: str, executor_id: str) -> str:
    """Commands to copy, with the ids of what is there."""
    jobs = f"{system.api_url}/api/jobs"
    target = {"ContainerId": system.containers[0], "NodeId": system.node}
    start = shlex.quote(json.dumps({"Target": [target]}))
    return f"""
Ready: {system.api_url}, AWS at {system._aws.endpoint}, logs in {_shown(LOCAL)}. Go on with:

  AUTH='Authorization: Bearer {system.token}'
  curl -H "$AUTH" {jobs}
  curl -H "$AUTH" -X POST {jobs}/{job_id}/start -H 'Content-Type: application/json' -d {start}
  curl -H "$AUTH" {jobs}/{job_id}/inspect/{executor_id}
  curl -H "$AUTH" -L '{jobs}/{job_id}/log/{executor_id}?ContainerId={system.containers[0]}'

Another worker: set -a; . {_shown(ENVIRONMENT)}; set +a; HEALTH_PORT=9465 .venv/bin/python -m worker
Ctrl-C stops all of it.
"""


def write_environment(environment: dict[str, str]) -> None:
    """Writes what another worker needs, for a shell to read."""
    lines = [f"{key}={_quoted(value)}\n" for key, value in sorted(environment.items())]
    write_private(ENVIRONMENT, "".join(lines))


def say(line: str) -> None:
    """Prints a line of progress."""
    print(f"· {line}", flush=True)


def fail(error: Exception) -> int:
    """Prints why it failed; returns the exit code for that."""
    print(f"make run: {error}", file=sys.stderr, flush=True)
    return 1


def indented(text: str) -> str:
    """The text's lines, set off from ours."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StackError(f"{name} must be a port number, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
