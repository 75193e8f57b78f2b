"""That the import rules of pyproject.toml hold for modules that do not exist yet."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.project import ROOT

RULES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
NAMES = {contract["id"]: contract["name"] for contract in RULES["contracts"]}
LINT_IMPORTS, RUFF = (Path(sys.executable).with_name(tool) for tool in ("lint-imports", "ruff"))
# Tests may import everything, and a measurement what it measures.
FREE = {"bench", "tests"}

# Each line is added to the file, which may be new, and breaks the contract of that id.
INTRUDERS = [
    ("worker/heartbeat.py", "import docker", "docker"),
    ("worker/target/new.py", "from docker.errors import APIError", "docker"),
    ("chalicelib/services/new.py", "import docker", "docker"),
    ("deploy/new.py", "import docker", "docker"),
    ("chalicelib/domain/new.py", "import boto3", "boto"),
    ("chalicelib/services/new.py", "from botocore.exceptions import ClientError", "boto"),
    ("worker/output/new.py", "import boto3", "boto"),
    ("chalicelib/services/new.py", "from pynamodb.models import Model", "pynamodb"),
    ("worker/target/new.py", "import pynamodb", "pynamodb"),
    ("dev/new.py", "import pynamodb", "pynamodb"),
    ("chalicelib/services/new.py", "import chalice", "chalice"),
    ("worker/new/__init__.py", "import chalice", "chalice"),
    ("chalicelib/new.py", "", "api-layers"),
    ("chalicelib/new/__init__.py", "", "api-layers"),
    ("chalicelib/domain/new.py", "from chalicelib import store", "api-layers"),
    ("chalicelib/schemas/new.py", "from chalicelib.store import models", "api-layers"),
    ("chalicelib/clients/new.py", "def late():\n    import chalicelib.store", "api-layers"),
    ("chalicelib/store/new.py", "", "store-layers"),
    ("worker/new.py", "", "worker-layers"),
    ("worker/engine/new.py", "from worker.target import run", "worker-layers"),
    ("worker/target/new.py", "from chalicelib import schemas", "schemas"),
    ("chalicelib/store/new.py", "from chalicelib import schemas", "schemas"),
    ("worker/target/new.py", "from chalicelib.services import jobs", "use-cases"),
    ("worker/target/new.py", "from chalicelib.openapi import document", "use-cases"),
    ("worker/target/new.py", "import chalicelib.tokens", "use-cases"),
    ("chalicelib/services/new.py", "from chalicelib.routes import http", "use-cases"),
    ("chalicelib/services/new.py", "from worker import lease", "worker"),
    ("dev/new.py", "from worker import lease", "worker"),
    ("deploy/new.py", "from dev import sample", "tools"),
    ("chalicelib/services/new.py", "from deploy import project", "tools"),
    ("worker/target/new.py", "from deploy import project", "tools"),
    ("worker/target/new.py", "from dev import sample", "tools"),
    ("simulate/new.py", "", "simulation-layers"),
    ("simulate/loop.py", "from simulate import model", "simulation-layers"),
    ("dev/new.py", "from simulate import prices", "simulation"),
    ("simulate/steps.py", "from chalicelib.config import settings", "simulated"),
    ("dev/children.py", "def late():\n    from dev import stack", "no-circles"),
    (
        "chalicelib/services/audit.py",
        "def late():\n    from chalicelib.services import jobs",
        "no-circles",
    ),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages that the rules are about, and the rules."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in RULES["root_packages"]:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    return folder


def broken(tree: Path) -> list[str]:
    """The names of the contracts that the tree breaks."""
    done = subprocess.run(
        [LINT_IMPORTS, "--no-logo"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    ending = " BROKEN"
    found = [
        line.removesuffix(ending) for line in done.stdout.splitlines() if line.endswith(ending)
    ]
    assert (done.returncode != 0) == bool(found)
    return found


@contextmanager
def added(path: Path, text: str) -> Iterator[None]:
    """Adds the text to the file, or as a new file, until the end of the block."""
    before = path.read_text(encoding="utf-8") if path.exists() else None
    folder_is_new = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{text}\n", encoding="utf-8")
    try:
        yield
    finally:
        if folder_is_new:
            shutil.rmtree(path.parent)
        elif before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")


def test_the_tree_as_it_is_keeps_all_rules(tree: Path) -> None:
    assert broken(tree) == []


@pytest.mark.parametrize(("file", "text", "contract"), INTRUDERS)
def test_a_new_import_breaks_the_rule_about_it(
    tree: Path, file: str, text: str, contract: str
) -> None:
    with added(tree / file, text):
        assert NAMES[contract] in broken(tree)


def test_each_rule_is_broken_by_an_intruder() -> None:
    assert {contract for _, _, contract in INTRUDERS} == set(NAMES)


def test_each_package_is_under_the_rules_or_named_as_free() -> None:
    packages = {path.parent.name for path in ROOT.glob("[!.]*/*.py")}
    assert packages == {*RULES["root_packages"], *FREE}


def test_a_folder_that_the_rules_cannot_see_is_refused(tree: Path) -> None:
    with added(tree / "worker" / "folder" / "new.py", "import docker"):
        done = subprocess.run([RUFF, "check", "--no-cache", tree], capture_output=True, text=True)
    assert done.returncode
    assert "INP001" in done.stdout
