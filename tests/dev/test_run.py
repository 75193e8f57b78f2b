"""`make run` for a newcomer: in a new folder, on its own engine."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.project import LOCAL, ROOT
from dev.addresses import free_port
from dev.environments import python_of
from dev.swarm import Swarm
from dev.tokens import bearer
from tests.support.background import in_background

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the engine in a network namespace needs root"),
    pytest.mark.timeout(300),
]
READY_SECONDS = 150
END_SECONDS = 60
# Nobody listens there.
PROXY = "http://127.0.0.1:9"
PARTS = ["app.py", "chalicelib", "deploy", "dev", "worker", ".chalice"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Swarm(tmp_path_factory.mktemp("run") / "swarm", nodes=1, tasks=1) as swarm:
        yield swarm.manager.docker_host


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project without any state, but with the MiniStack that is installed here."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    (tmp_path / ".local").mkdir()
    python_of("ministack", "MiniStack")
    (tmp_path / ".local" / "ministack").symlink_to(LOCAL / "ministack")
    return tmp_path


@contextmanager
def run(folder: Path, engine: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`make run` as a script starts it in the background, behind a proxy that does not answer."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"DOCKER_HOST": engine, "http_proxy": PROXY, "https_proxy": PROXY}
    environment |= {"API_PORT": str(free_port()), "AWS_PORT": str(free_port()), **settings}
    command = [sys.executable, "-m", "dev.run"]
    # Its children die with it.
    with (
        printed(folder).open("wb") as output,
        in_background(command, folder, output, environment) as process,
    ):
        yield process


def printed(folder: Path) -> Path:
    """What it says, with its errors."""
    return folder / "printed"


def state_of(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What it writes for other tools, once it is ready."""
    path = folder / ".local" / "run.json"
    deadline = time.monotonic() + READY_SECONDS
    while not path.exists():
        assert process.poll() is None, printed(folder).read_text()
        assert time.monotonic() < deadline, printed(folder).read_text()
        time.sleep(0.2)
    return dict(json.loads(path.read_text()))


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def second_worker_serves(folder: Path) -> None:
    """With what a shell reads of the environment that is left for it."""
    script = "set -a; . .local/env; set +a; exec timeout -s INT 4 $PYTHON -m worker"
    worker = subprocess.run(
        ["sh", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "HEALTH_PORT": str(free_port())},
        capture_output=True,
        text=True,
    )
    assert '"serving"' in worker.stderr, worker.stderr
    assert "Traceback" not in worker.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_and_leaves_nothing_behind(
    folder: Path, engine: str, number: signal.Signals
) -> None:
    with run(folder, engine) as process:
        state = state_of(folder, process)
        headers = bearer(state["Token"])
        jobs = requests.get(f"{state['ApiUrl']}/api/jobs", headers=headers, timeout=30).json()
        assert [job["Name"] for job in jobs] == ["Who is there"]
        # Nobody else may read what has keys, tokens, logs or output.
        assert stat.S_IMODE((folder / ".local").stat().st_mode) == 0o700
        for private in ("env", "run.json", "aws/keys.json"):
            assert stat.S_IMODE((folder / ".local" / private).stat().st_mode) == 0o600, private
        second_worker_serves(folder)
        process.send_signal(number)
        process.wait(END_SECONDS)
    assert process.returncode == 0, printed(folder).read_text()
    assert "FINISHED  0" in printed(folder).read_text()
    assert not (folder / ".local" / "run.json").exists()
    assert [name for name, pid in state["Pids"].items() if not ended(pid)] == []


def test_a_database_that_lets_everybody_in_is_not_started(folder: Path, engine: str) -> None:
    with run(folder, engine, AWS="localstack-pypi") as process:
        process.wait(END_SECONDS)
    assert process.returncode == 1
    assert "AWS=localstack-pypi is only for tests" in printed(folder).read_text()
