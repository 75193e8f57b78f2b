"""The worker as a package, in its own environment, from a folder without the project."""

import email
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from deploy.project import ROOT
from dev.addresses import free_port

START_SECONDS = 30
END_SECONDS = 30
# What it logs when it finds no engine.
MISSED = "node not announced yet"
# Both ways to start it.
COMMANDS = [("appjobs-worker",), ("python", "-m", "worker")]
pytestmark = pytest.mark.timeout(300)


def build(project: Path, folder: Path) -> Path:
    """The wheel of the project in that folder, made by the backend that is pinned here."""
    pip(
        sys.executable,
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        str(folder),
        str(project),
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(python: str | Path, *words: str) -> None:
    """Runs pip; fails with what it says."""
    command = [str(python), "-m", "pip", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def metadata(wheel: Path) -> email.message.Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that has the wheel and what is pinned for it."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pins = (
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        str(ROOT / "worker/requirements.txt"),
    )
    pip(python, "install", *pins)
    pip(python, "install", "--no-index", "--no-deps", str(wheel))
    pip(python, "check")
    return environment / "bin"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the package is made of, as in an archive: without git's folder."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("chalicelib", "worker"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def test_it_has_every_module_and_nothing_else(wheel: Path) -> None:
    modules = {
        str(path.relative_to(ROOT))
        for name in ("chalicelib", "worker")
        for path in (ROOT / name).rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == modules


def test_it_needs_what_the_workers_requirements_ask_for(wheel: Path) -> None:
    lines = (ROOT / "worker/requirements.in").read_text(encoding="utf-8").splitlines()
    asked = {line.replace("_", "-") for line in lines if line and line[0] != "#"}
    assert set(metadata(wheel).get_all("Requires-Dist") or []) == asked


def test_an_archive_without_tags_can_be_built(copy: Path, tmp_path: Path) -> None:
    assert metadata(build(copy, tmp_path))["Version"] == "0.0.0"


def test_the_version_is_the_tags(copy: Path, tmp_path: Path) -> None:
    author = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "all"), ("tag", "v9.8.7")):
        subprocess.run(["git", *author, *words], cwd=copy, check=True)
    assert metadata(build(copy, tmp_path))["Version"] == "9.8.7"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_serves_until_it_is_told_to_end(
    programs: Path, command: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither AWS nor an engine is there: it says so, tries again, and is alive."""
    port = free_port()
    environment = {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "DOCKER_HOST": f"unix://{tmp_path}/no-engine",
        "HEALTH_PORT": str(port),
        "POLL_SECONDS": "1",
        "SPOOL_DIR": str(tmp_path / "spool"),
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [programs / command[0], *command[1:]],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_it_tries(port, worker, log)
        worker.terminate()
        assert worker.wait(END_SECONDS) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    assert '"drained"' in log.read_text()


def wait_until_it_tries(port: int, worker: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns once it has missed the engine and says that it is alive; fails with its log otherwise."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and worker.poll() is None:
        if MISSED in log.read_text() and is_alive(port):
            return
        time.sleep(0.1)
    pytest.fail(f"exit status {worker.poll()}: {log.read_text()}")


def is_alive(port: int) -> bool:
    """What the worker says of itself."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
