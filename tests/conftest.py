"""The stack under test: an AWS emulator and the API beside it, started once for a session.

If `APPJOBS_API_URL` is set, the tests speak to that API and start nothing. What a worker would write, and
the tokens that they make, they write to the AWS of the usual variables (`AWS_ENDPOINT_URL`,
`APPJOBS_PREFIX`, `LOG_BUCKET`, …).

`APPJOBS_TOKEN` is an administrator's token with the right to run as root; if it is not set, one is made.
`APPJOBS_TEST_THREADS` is the largest number of requests at the same time.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from dev.addresses import free_port
from dev.aws import Aws
from dev.stack import start_aws
from tests.support.local_api import admin_token, local_api

# What a test records under this name is printed at the end of the run.
TOLD = "told"
# What a finished result has of the engine's own inspect.
ENGINE_KEYS = {
    "ID",
    "ContainerID",
    "ExitCode",
    "Running",
    "Pid",
    "ProcessConfig",
    "OpenStdin",
    "OpenStdout",
    "OpenStderr",
    "CanRemove",
    "DetachKeys",
}


class Scheduling(LoadFileScheduling):
    """Each process of `pytest -n` runs whole files."""

    def _split_scope(self, nodeid: str) -> str:
        # The second of its files judges what the first has called.
        together = "tests/deployed/"
        return together if nodeid.startswith(together) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Which process runs what, whatever `--dist` says."""
    return Scheduling(config, log)


def pytest_report_header() -> str:
    """Which engine is used by the tests that start one."""
    try:
        version = subprocess.run(["dockerd", "--version"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        version = "none is installed"
    return f"engine: {version.strip()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests found, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == TOLD:
                terminalreporter.write_line(f"{report.nodeid}: {text}")


@pytest.fixture(scope="session")
def aws_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the AWS of this session keeps its state."""
    return tmp_path_factory.mktemp("aws") / "state"


@pytest.fixture(scope="session")
def aws(aws_directory: Path) -> Iterator[Aws]:
    """The AWS of this session."""
    if "APPJOBS_API_URL" in os.environ:
        yield Aws(os.environ["AWS_ENDPOINT_URL"], environment=dict(os.environ))
        return
    running = start_aws(aws_directory, free_port())
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def api_log(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """What the API writes to its standard output and error; None if another machine has it."""
    if "APPJOBS_API_URL" in os.environ:
        given = os.environ.get("APPJOBS_API_LOG")
        return Path(given) if given else None
    return tmp_path_factory.mktemp("api") / "api.log"


@pytest.fixture(scope="session")
def api_url(aws: Aws, api_log: Path | None, token: str) -> Iterator[str]:
    """The API's base: all before `/api`."""
    if given := os.environ.get("APPJOBS_API_URL"):
        yield given.rstrip("/")
        return
    assert api_log
    with local_api(aws.environment, api_log, token) as url:
        yield url


@pytest.fixture(scope="session")
def token(aws: Aws) -> str:
    """A token that may do everything: the given API's, or one made for this session."""
    return os.environ.get("APPJOBS_TOKEN") or admin_token(aws.environment)
