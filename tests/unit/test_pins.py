"""Every package that is installed anywhere is pinned, with hashes. `make pins` writes the pins."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.project import ROOT

LAMBDA, WORKER, DEV = (
    ROOT / name for name in ("requirements.txt", "worker/requirements.txt", "requirements-dev.txt")
)
PINNED = [LAMBDA, WORKER, DEV, ROOT / "dev/ministack.txt", ROOT / "dev/localstack.txt"]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def lines(path: Path) -> list[str]:
    """What pip reads: lines that go on in the next one are one, comments are none."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        line
        for line in (raw.partition(" #")[0].strip() for raw in text.splitlines())
        if line and line[0] != "#"
    ]


def pins(path: Path) -> dict[str, set[str]]:
    """The versions of each package: several if they depend on the Python."""
    found: dict[str, set[str]] = {}
    for line in lines(path):
        requirement = Requirement(line.partition(" --hash")[0])
        (version,) = requirement.specifier
        assert version.operator == "==", line
        found.setdefault(canonicalize_name(requirement.name), set()).add(version.version)
    return found


@pytest.mark.parametrize("path", PINNED, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_line_is_a_version_with_hashes_and_names_no_index(path: Path) -> None:
    assert lines(path)
    for line in lines(path):
        package, *hashes = line.split(" --hash")
        assert hashes
        assert all(HASH.fullmatch(f"--hash{rest.strip()}") for rest in hashes), line
        assert "://" not in package, line


@pytest.mark.parametrize("path", PINNED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_asked_for_is_what_is_pinned(path: Path) -> None:
    for line in lines(path.with_suffix(".in")):
        if not line.startswith("-r "):
            asked = Requirement(line)
            (version,) = asked.specifier
            assert version.version in pins(path)[canonicalize_name(asked.name)], "run make pins"


@pytest.mark.parametrize("path", [LAMBDA, WORKER], ids=["lambda", "worker"])
def test_what_a_package_needs_is_pinned_beside_it(path: Path) -> None:
    """pip would refuse to install less; this says so before an image is built."""
    pinned = pins(path)
    for name in pinned.keys() - {"pywin32"}:
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pinned, f"{name} needs {needed}"


@pytest.mark.parametrize("one", [LAMBDA, WORKER], ids=["lambda", "worker"])
def test_what_is_tested_is_what_runs(one: Path) -> None:
    """API and worker share versions, and the tests run with both's."""
    for other in (LAMBDA, WORKER, DEV):
        ours, theirs = pins(one), pins(other)
        both = ours.keys() & theirs.keys()
        assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}
    assert pins(one).keys() <= pins(DEV).keys()


def test_lambdas_pins_are_the_same_for_every_python() -> None:
    """The package is made for another Python than the one that makes it: pip would look at its own."""
    assert not [line for line in lines(LAMBDA) if ";" in line]


def test_the_package_is_built_by_what_is_pinned() -> None:
    """pip fetches a build's tools only by their versions; the tests build with these, by hash too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = pins(DEV)
    for tool in map(Requirement, project["build-system"]["requires"]):
        assert pinned[tool.name] == {version.version for version in tool.specifier}, "run make pins"
