"""LocalStack in a container, by docker compose."""

import os
import shutil
import subprocess
from pathlib import Path

from deploy.project import ROOT
from dev.addresses import answers, reachable_at
from dev.aws import Aws, aws_environment
from dev.errors import LocalError
from dev.waiting import wait_for

_COMPOSE_FILE = ROOT / "localstack-compose.yml"
# A container takes longer than a process, and its image may have to be pulled.
_START_SECONDS = 600.0


class _Composed(Aws):
    def stop(self) -> None:
        _compose("down")


def start_localstack_container(state_dir: Path, port: int, bind: str) -> Aws:
    """Starts the container, with nothing deployed in it. It keeps no state. Raises LocalError."""
    _compose("up", "--detach", LOCALSTACK_BIND=bind, LOCALSTACK_PORT=str(port))
    endpoint = reachable_at(bind, port)
    aws = _Composed(endpoint, environment=aws_environment(endpoint))
    with aws.stopped_on_failure():
        health = f"{endpoint}/_localstack/health"
        wait_for(lambda: answers(health), _START_SECONDS, "LocalStack")
    return aws


def _compose(*arguments: str, **environment: str) -> None:
    command = [*_compose_command(), "-f", str(_COMPOSE_FILE), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise LocalError(f"LocalStack, docker compose {arguments[0]}: {reason[-1]}")


def _compose_command() -> list[str]:
    plugin = ["docker", "compose"]
    if shutil.which("docker"):
        done = subprocess.run([*plugin, "version"], capture_output=True)
        if done.returncode == 0:
            return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise LocalError("AWS=localstack needs docker compose: install it, or leave AWS unset")
