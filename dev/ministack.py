"""MiniStack: a local AWS that checks signatures and policies, and keeps its state."""

import json
import secrets
import sys
from pathlib import Path

from dev.addresses import LOOPBACK, answers, go_without_proxy, reachable_at
from dev.aws import Aws, aws_environment
from dev.children import start_child
from dev.environments import python_of
from dev.private_files import write_private
from dev.waiting import wait_for

_START_SECONDS = 60.0


def start_ministack(
    state_dir: Path,
    port: int,
    bind: str = LOOPBACK,
    base: str = sys.executable,
    **settings: str,
) -> Aws:
    """Starts MiniStack with the state it had in `state_dir`, and nothing deployed by us.

    It answers to those that have the keys of its `environment`, which stay the same with the state.
    The interpreter `base` runs both MiniStack and its Lambdas. `settings` are added to its environment.
    Raises LocalError.
    """
    python = python_of("ministack", "MiniStack", base)
    log = state_dir.with_suffix(".log")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = keys_of(state_dir)
    environment = {**_own_settings(state_dir.absolute(), bind, port), **keys, **settings}
    # SIGTERM makes it write its state; nothing else does.
    child = start_child("aws", [str(python), "-m", "dev.ministack_door"], environment, log, "TERM")
    go_without_proxy(bind)
    endpoint = reachable_at(bind, port)
    aws = Aws(endpoint, [child], aws_environment(endpoint, keys))
    with aws.stopped_on_failure():
        wait_for(lambda: answers(f"{endpoint}/_ministack/health"), _START_SECONDS, "AWS", aws)
    return aws


def keys_of(state_dir: Path) -> dict[str, str]:
    """The keys of the AWS with that state. They are made if it has none."""
    path = state_dir / "keys.json"
    if not path.exists():
        key = "AKIA" + "".join(
            secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)
        )
        secret = secrets.token_urlsafe(30)
        write_private(path, json.dumps({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}))
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _own_settings(state_dir: Path, bind: str, port: int) -> dict[str, str]:
    temporary = state_dir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "AUTH": "true",
        "BIND_HOST": bind,
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state_dir / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state_dir / "s3"),
        # It keeps a file with its process id there, which has only the port in its name.
        "TMPDIR": str(temporary),
        # Listeners of its own, on fixed ports.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }
