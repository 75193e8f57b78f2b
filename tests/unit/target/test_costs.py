"""What one target costs in DynamoDB: what its worker reads and writes from the claim to the end."""

from pathlib import Path
from typing import Any

import pytest

from chalicelib.clients.queues import Received, TargetMessage
from tests.support.builders import build_execution, build_inspect
from tests.support.clock import NOW
from tests.support.costs import count_costs
from tests.unit.target.life import HeldRunner, container, printing

pytestmark = pytest.mark.usefixtures("aws", "clock")

EXECUTION = ("123e4567-e89b-42d3-a456-426614174000", f"{NOW:.6f}")
EXEC_ID = "e" * 64


def containers(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


@pytest.mark.parametrize(
    ("targets", "output", "requests", "read_units", "write_units"),
    [
        # The execution; the claim and the end.
        (1, 200, {"GetItem": 1, "PutItem": 2}, 0.5, 2),
        (32, 200, {"GetItem": 1, "PutItem": 2}, 0.5, 2),
        # A part on top.
        (1000, 200, {"GetItem": 2, "PutItem": 2}, 1.0, 2),
        (1, 512, {"GetItem": 1, "PutItem": 2}, 0.5, 2),
        # The end of the output on top.
        (1, 8000, {"GetItem": 1, "PutItem": 3}, 0.5, 2 + 8),
        (1, 20_000, {"GetItem": 1, "PutItem": 3, "PutObject": 1}, 0.5, 2 + 8),
    ],
)
def test_a_target(
    engine: Any,
    exit_codes: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    targets: int,
    output: int,
    requests: dict[str, int],
    read_units: float,
    write_units: int,
) -> None:
    ids = containers(targets)
    named = [("n1", container_id) for container_id in ids]
    build_execution(*EXECUTION, targets=named, MayRunAsRoot=True, ExpiresAt=int(NOW) + 10**6).save()
    engine.inspect_container.side_effect = container
    engine.create.side_effect = lambda *arguments: EXEC_ID
    engine.start.side_effect = printing((1, b"x" * output))
    engine.inspect.side_effect = lambda exec_id: build_inspect(exec_id, ids[-1])
    target = TargetMessage(*EXECUTION, ids[-1], part=(targets - 1) // 32)
    runner = HeldRunner(engine, exit_codes, tmp_path)
    with count_costs(monkeypatch) as costs:
        runner.run(Received(target, "m1", "receipt", first=True))
    assert costs.requests == requests
    assert (costs.read_units, costs.write_units) == (read_units, write_units)
