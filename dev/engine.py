"""The machine's Docker Engine: find it, or install and start it; and talk to any engine."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_SECONDS = 90.0
LOG_TAIL_LINES = 15


class EngineError(Exception):
    """A command to an engine, or an engine itself, failed; the text says how."""


class EngineMissing(EngineError):
    """There is no engine and none can be installed here; the text says what to do."""


def docker(host: str, *args: str, input: bytes | None = None, timeout: float = 60) -> str:
    """Run the docker CLI against the engine at `host`.

    Returns what it printed, stripped. Raises EngineError with the command and its error output,
    also when there is no docker CLI or the engine does not answer within `timeout` seconds.
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
        raise EngineError(f"{' '.join(command)}: no answer within {timeout:g} s") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise EngineError(f"{' '.join(command)}: {reason}")
    return done.stdout


def answers(host: str) -> bool:
    """Returns whether an engine answers at `host` within a few seconds."""
    try:
        return bool(docker(host, "version", "--format", "{{.Server.Version}}", timeout=5))
    except EngineError:
        return False


def node_id(host: str) -> str:
    """Returns the engine's Swarm NodeID, or its engine ID where it is in no swarm.

    Raises EngineError when the engine does not answer.
    """
    return docker(host, "info", "--format", "{{or .Swarm.NodeID .ID}}")


def ensure_engine(log_dir: Path) -> tuple[str, subprocess.Popen[bytes] | None]:
    """Make sure that there is an engine: use the one there is, else install and start one.

    Returns the docker host url to use, and the dockerd that was started for it, if one was: that is
    the caller's to stop. (systemd keeps its own.) Raises EngineMissing when there is none and it
    cannot be installed here, EngineError when the one it started does not come up.
    """
    configured = os.environ.get("DOCKER_HOST")
    if configured:
        if not answers(configured):
            raise EngineMissing(
                f"no engine answers at DOCKER_HOST={configured}: start it, or unset the variable"
            )
        return configured, None
    if answers(DEFAULT_HOST):
        return DEFAULT_HOST, None
    install_missing({"dockerd": "docker.io", "iptables": "iptables"}, log_dir)
    return DEFAULT_HOST, _start_engine(log_dir)


def install_missing(programs: dict[str, str], log_dir: Path) -> None:
    """Install the Debian packages of those programs (program: package) that are not on the PATH.

    Raises EngineMissing when that needs another user or another system, EngineError when apt fails.
    """
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    if missing:
        install(sorted(missing), log_dir)


def install(packages: list[str], log_dir: Path) -> None:
    """Install Debian packages; raises as `install_missing` does."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        raise EngineMissing(
            f"missing here: {names}. Install it, or run as root on Debian or Ubuntu."
        )
    log = log_dir / "apt.log"
    print(f"installing {names} with apt-get (log: {log})", flush=True)
    _apt_get(log, "update")
    _apt_get(log, "install", "-y", "--no-install-recommends", *packages)


def _apt_get(log: Path, *args: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("ab") as output:
        command = ["apt-get", *args]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    if done.returncode:
        raise EngineError(f"{' '.join(command)} failed:\n{log_tail(log)}")


def _start_engine(log_dir: Path) -> subprocess.Popen[bytes] | None:
    if Path("/run/systemd/system").exists():
        _start_with_systemd()
        return None
    # Installing the package may have started it already, where an init system is there.
    if answers(DEFAULT_HOST):
        return None
    return _start_dockerd(log_dir / "dockerd.log")


def _start_with_systemd() -> None:
    print("starting the Docker Engine: systemctl start docker", flush=True)
    done = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True)
    if done.returncode:
        raise EngineMissing(f"no engine runs, systemctl start docker: {done.stderr.strip()}")
    wait_for(lambda: answers(DEFAULT_HOST), START_SECONDS, "the Docker Engine to answer")


def _start_dockerd(log: Path) -> subprocess.Popen[bytes]:
    if os.geteuid() != 0:
        raise EngineMissing("no Docker Engine runs here: start one, or set DOCKER_HOST.")
    print(f"starting dockerd (log: {log})", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    engine = start_detached(["dockerd"], log)
    wait_until_up(engine, DEFAULT_HOST, log)
    return engine


def start_detached(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that a Ctrl-C in the terminal is not for it.

    Returns the process; its output is appended to `log`.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_up(engine: subprocess.Popen[bytes], host: str, log: Path) -> None:
    """Wait until the engine that was just started answers.

    Raises EngineError with the end of its log when it ends or does not answer in time.
    """

    def up() -> bool:
        if engine.poll() is not None:
            raise EngineError(f"dockerd ended with code {engine.returncode}")
        return answers(host)

    try:
        wait_for(up, START_SECONDS, f"dockerd to answer at {host}")
    except EngineError as error:
        raise EngineError(f"{error}; the end of its log:\n{log_tail(log)}") from None


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds; raises EngineError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise EngineError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.1)


def log_tail(log: Path) -> str:
    """Returns the last lines of a log file, or nothing when there is no such file."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
