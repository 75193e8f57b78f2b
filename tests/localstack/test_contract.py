"""The contract on LocalStack and Amazon's DynamoDB Local."""

import os
import subprocess
import sys

import pytest

from deploy.project import ROOT


@pytest.mark.timeout(1800)  # All contract tests, and before them an installation.
def test_contract() -> None:
    # This DynamoDB Local, of 2020, takes ten writes in a transaction; DynamoDB takes a hundred.
    options = ["-q", "-p", "no:cacheprovider", "--timeout=600", "-m", "not wide"]
    command = [sys.executable, "-m", "pytest", *options, "tests/contract"]
    environment = {**os.environ, "AWS": "localstack-pypi"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:]
