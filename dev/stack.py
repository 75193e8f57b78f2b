"""AWS on this machine, with our template deployed in it: `python -m dev.stack` starts only this.

MiniStack plays AWS by default. LocalStack plays it if the environment says `AWS=localstack` (in a
container) or `AWS=localstack-pypi` (as a process, with Amazon's DynamoDB Local beside it).
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.project import LOCAL
from dev.addresses import LOOPBACK, check_port, go_without_proxy
from dev.aws import Aws, deploy_template
from dev.errors import LocalError
from dev.localstack import deploy_to_both, start_localstack
from dev.localstack_container import start_localstack_container
from dev.ministack import start_ministack
from dev.private_files import close_local

PORT = 4566
Start = Callable[[Path, int, str], Aws]
Deploy = Callable[[Mapping[str, str]], dict[str, str]]
_KINDS: dict[str, tuple[Start, Deploy]] = {
    "ministack": (start_ministack, deploy_template),
    "localstack": (start_localstack_container, deploy_template),
    "localstack-pypi": (start_localstack, deploy_to_both),
}


def start_aws(state_dir: Path, port: int = PORT, bind: str = LOOPBACK) -> Aws:
    """Starts AWS with the state it had in `state_dir`, and deploys the template.

    It listens on `bind` (`0.0.0.0`: all interfaces). Raises LocalError.
    """
    check_port(bind, port)
    go_without_proxy(bind)
    start, deploy = _chosen()
    aws = start(state_dir, port, bind)
    with aws.stopped_on_failure():
        aws.environment |= deploy(aws.environment)
    return aws


def _chosen() -> tuple[Start, Deploy]:
    kind = os.environ.get("AWS") or "ministack"
    if kind not in _KINDS:
        raise LocalError(f"AWS must be unset or one of {', '.join(_KINDS)}, not {kind!r}")
    return _KINDS[kind]


def main() -> None:
    """Starts only AWS, for a look into it, until SIGINT or SIGTERM."""
    close_local()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    aws = start_aws(LOCAL / "aws", int(os.environ.get("AWS_PORT") or PORT))
    try:
        print("\n".join(f"{key}={value}" for key, value in aws.environment.items()), flush=True)
        ended.wait()
    finally:
        aws.stop()


if __name__ == "__main__":
    main()
