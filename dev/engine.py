"""The machine's Docker Engine: finds it, or installs and starts it; and speaks to any engine."""

import os
import subprocess
from pathlib import Path

from dev.children import Child, start_detached
from dev.errors import LocalError
from dev.packages import install_missing
from dev.waiting import wait_for

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_SECONDS = 90.0


class EngineError(LocalError):
    """An engine is missing, or a command to it failed; the text says how, or what to do."""


def docker(host: str, *args: str, input: bytes | None = None, timeout: float = 60) -> str:
    """Runs the docker CLI against the engine at `host`.

    Returns what it printed, stripped. Raises EngineError with the command and its error output; also if
    there is no docker CLI, or if the engine does not answer within `timeout` seconds.
    """
    return docker_bytes(host, *args, input=input, timeout=timeout).decode(errors="replace").strip()


def docker_bytes(host: str, *args: str, input: bytes | None = None, timeout: float = 60) -> bytes:
    """Like `docker`, but returns the output as it is: for `docker save` and the like."""
    command = ["docker", "-H", host, *args]
    try:
        done = subprocess.run(
            command,
            input=b"" if input is None else input,
            capture_output=True,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise EngineError("there is no docker command line client on this machine") from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"{' '.join(command)} did not end within {timeout:g} s") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise EngineError(f"{' '.join(command)}: {reason}")
    return done.stdout


def engine_answers(host: str) -> bool:
    """Whether an engine answers at `host` within a few seconds."""
    try:
        return bool(docker(host, "version", "--format", "{{.Server.Version}}", timeout=5))
    except EngineError:
        return False


def node_id(host: str) -> str:
    """The engine's Swarm NodeID, or its engine ID if it is in no swarm.

    Raises EngineError if the engine does not answer.
    """
    return docker(host, "info", "--format", "{{or .Swarm.NodeID .ID}}")


def ensure_engine(log_dir: Path) -> tuple[str, Child | None]:
    """Makes sure that there is an engine: uses the one that is there, or installs and starts one.

    Returns the URL for DOCKER_HOST, and the dockerd if one was started. The caller must stop that one;
    systemd keeps its own. Raises LocalError if there is no engine and none can be installed here, or
    if the one that was started does not answer.
    """
    configured = os.environ.get("DOCKER_HOST")
    if configured:
        if not engine_answers(configured):
            raise EngineError(
                f"no engine answers at DOCKER_HOST={configured}: start it, or unset the variable"
            )
        return configured, None
    if engine_answers(DEFAULT_HOST):
        return DEFAULT_HOST, None
    install_missing({"dockerd": "docker.io", "iptables": "iptables"}, log_dir)
    return DEFAULT_HOST, _start_engine(log_dir)


def _start_engine(log_dir: Path) -> Child | None:
    if Path("/run/systemd/system").exists():
        _start_with_systemd()
        return None
    # If there is an init system, the installation of the package may have started it already.
    if engine_answers(DEFAULT_HOST):
        return None
    return _start_dockerd(log_dir / "dockerd.log")


def _start_with_systemd() -> None:
    print("starting the Docker Engine: systemctl start docker", flush=True)
    done = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True)
    if done.returncode:
        raise EngineError(
            f"no engine runs, and systemctl start docker failed: {done.stderr.strip()}"
        )
    wait_for(lambda: engine_answers(DEFAULT_HOST), START_SECONDS, "the Docker Engine to answer")


def _start_dockerd(log: Path) -> Child:
    if os.geteuid() != 0:
        raise EngineError("no Docker Engine runs here: start one, or set DOCKER_HOST.")
    print(f"starting dockerd (log: {log})", flush=True)
    engine = Child("dockerd", start_detached(["dockerd"], log), log)
    wait_until_up(engine, DEFAULT_HOST)
    return engine


def wait_until_up(engine: Child, host: str) -> None:
    """Waits until the engine that was just started answers.

    Raises LocalError with the end of its log if it ends, or does not answer in time.
    """
    wait_for(lambda: engine_answers(host), START_SECONDS, f"dockerd to answer at {host}", engine)
