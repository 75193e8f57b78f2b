"""What depends on an engine's words, events or exit codes, on the newest engine that starts here."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.project import ROOT
from dev import engines
from tests.conftest import TOLD


@pytest.mark.timeout(1200)  # A swarm of its own, and before it the engine from Debian's mirror.
def test_on_the_newest_engine(record_property: Callable[[str, object], None]) -> None:
    on_newest = [sys.executable, "-m", "dev.engines", engines.NEWEST]
    options = ["-q", "-p", "no:cacheprovider", "--timeout=600", "-m", "engine"]
    command = [*on_newest, sys.executable, "-m", "pytest", *options, "tests/swarm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    record_property(TOLD, done.stdout.partition("\n")[0])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
