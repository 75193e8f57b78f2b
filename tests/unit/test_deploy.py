"""What `make deploy` takes as a stage."""

import argparse

import pytest

from deploy.deploy import _stage


@pytest.mark.parametrize("stage", ["prod", "a", "0-b", "nodes", "x" * 20])
def test_a_stage(stage: str) -> None:
    assert _stage(stage) == stage


@pytest.mark.parametrize("stage", ["", "Prod", "-a", "x" * 21, "a b", "prod-node-b", "prod-node"])
def test_what_is_no_stage(stage: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _stage(stage)
