"""Settings that only the worker has. Those that it shares with the API are in chalicelib/config.py."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chalicelib.config import MAX_LOG_BYTES, read_switch, read_whole_number, split_list

_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class WorkerSettings:
    """What one worker process serves, and how much at once."""

    # Engines to serve: unix:// or tcp:// (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH for TLS).
    engines: tuple[str, ...]
    # Names this worker in the nodes table and in logs.
    worker_id: str
    # How many commands may be in their first minute at once, on each engine.
    max_commands: int
    # How many commands may run at once in all, on each engine. One application may have as many of them
    # as it leaves free for the others.
    max_running: int
    # How long one poll of an idle queue lasts, in seconds (1–20). If no command runs, a drain may take
    # that long.
    poll_seconds: int
    # The folder where output waits for its upload.
    spool_dir: Path
    # How many bytes may wait there, of all commands together. If there are more, a command that prints
    # has to wait.
    spool_bytes: int
    # How many bytes of output a command's log takes; the last MiB comes on top. A job may lower this.
    log_bytes: int
    # `/healthz` and `/metrics` answer on this port of the loopback interface.
    health_port: int
    # Whether the values of secret arguments are removed from the output before it is stored.
    redact: bool


def load(environ: Mapping[str, str]) -> WorkerSettings:
    """The settings from environment variables.

    Raises ValueError, which names the variable, if one is wrong.
    """
    poll_seconds = read_whole_number(environ, "POLL_SECONDS", 20)
    if poll_seconds > 20:
        raise ValueError("POLL_SECONDS must be at most 20, the longest poll that SQS knows")
    max_commands = read_whole_number(environ, "MAX_COMMANDS", 32)
    max_running = read_whole_number(environ, "MAX_RUNNING", max(1000, max_commands))
    if max_running < max_commands:
        raise ValueError(f"MAX_RUNNING must be at least MAX_COMMANDS, which is {max_commands}")
    log_bytes = read_whole_number(environ, "LOG_BYTES", 2 * 1024**3)
    if log_bytes > MAX_LOG_BYTES:
        raise ValueError(f"LOG_BYTES must be at most {MAX_LOG_BYTES}")
    return WorkerSettings(
        engines=_engines(environ),
        worker_id=environ.get("WORKER_ID") or f"{socket.gethostname()}-{os.getpid()}",
        max_commands=max_commands,
        max_running=max_running,
        poll_seconds=poll_seconds,
        spool_dir=Path(environ.get("SPOOL_DIR") or "/var/tmp/appjobs"),
        spool_bytes=read_whole_number(environ, "SPOOL_BYTES", 1024**3),
        log_bytes=log_bytes,
        health_port=read_whole_number(environ, "HEALTH_PORT", 9464),
        redact=read_switch(environ, "REDACT", default=True),
    )


def _engines(environ: Mapping[str, str]) -> tuple[str, ...]:
    engines = split_list(environ.get("DOCKER_HOSTS", ""))
    engines = engines or (environ.get("DOCKER_HOST") or _DEFAULT_ENGINE,)
    for engine in engines:
        if not engine.startswith(("unix://", "tcp://")):
            raise ValueError(
                f"an engine must be unix://… or tcp://…, not {engine!r}. If it is reached by ssh, "
                "forward its socket: ssh -nNT -o ServerAliveInterval=20 -L /run/engine.sock:"
                "/var/run/docker.sock HOST"
            )
    return engines
