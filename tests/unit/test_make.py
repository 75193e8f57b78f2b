"""What `make` does before any tool of ours runs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.project import ROOT

TOOLS = ("ruff", "mypy", "lint-imports")


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """An environment whose tools only note down their calls, and fail if FAILS has their name."""
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        tool = tmp_path / "bin" / name
        tool.write_text(
            f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/calls\n[ "$FAILS" != {name} ]\n'
        )
        tool.chmod(0o755)
    (tmp_path / ".stamp").touch()
    return tmp_path


def make(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    # A make around this one would have its options in these.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("broken", TOOLS)
def test_check_runs_all_tools_and_names_those_that_fail(stand_ins: Path, broken: str) -> None:
    done = make("check", f"VENV={stand_ins}", FAILS=broken)
    assert done.returncode
    calls = (stand_ins / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["ruff", "ruff", "mypy", "lint-imports"]
    failed = re.search(r"make check: failed: (.*)", done.stderr)
    assert failed
    assert {name.split()[0] for name in failed[1].split(", ")} == {broken}


def test_check_succeeds_if_all_tools_do(stand_ins: Path) -> None:
    assert make("check", f"VENV={stand_ins}", FAILS="none").returncode == 0


def test_each_command_is_in_the_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert phony
    commands = set(phony[1].replace("\\\n", " ").split())
    assert {line.split()[0] for line in make("help").stdout.splitlines()} == commands
