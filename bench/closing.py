"""How many executions a core closes: the function `closing`, against a real AWS of this machine.

The time is the processor's, of this process only: what a Lambda would be billed for, if it never waited.

Run it as `python -m bench.closing [EXECUTIONS]`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chalicelib import store, telemetry
from chalicelib.domain.ends import End
from chalicelib.services import closing
from dev.addresses import free_port
from dev.stack import start_aws
from tests.support.builders import build_execution, build_targets

_BATCH, _TARGETS = 100, 32
_INNER = "--inner"


def main(count: int) -> None:
    """Starts AWS, and this program once more: settings are read when the code is imported."""
    with tempfile.TemporaryDirectory() as folder:
        aws = start_aws(Path(folder, "aws"), free_port())
        try:
            environment = {**os.environ, **aws.environment}
            command = [sys.executable, "-m", "bench.closing", _INNER, str(count)]
            subprocess.run(command, env=environment, check=True)
        finally:
            aws.stop()


def _measure(count: int) -> None:
    telemetry.configure("warning")
    keys = [(f"job-{number}", f"{time.time():.6f}") for number in range(count)]
    for key in keys:
        _store(*key)
    bodies = {
        str(number): json.dumps({"JobId": job_id, "ExecutorId": executor_id})
        for number, (job_id, executor_id) in enumerate(keys)
    }
    begun, wall = time.process_time(), time.monotonic()
    for first in range(0, count, _BATCH):
        batch = {str(n): bodies[str(n)] for n in range(first, min(first + _BATCH, count))}
        assert not closing.close_ended(batch)
    spent, waited = time.process_time() - begun, time.monotonic() - wall
    print(f"{count} executions of {_TARGETS} targets, {_BATCH} at a time")
    print(f"{count / spent:.0f} a second of a core; {count / waited:.0f} a second with this AWS")


def _store(job_id: str, executor_id: str) -> None:
    """An execution all of whose targets are counted."""
    containers = [f"{number:064x}" for number in range(_TARGETS)]
    targets = build_targets(*containers, node="n" * 25)
    execution = build_execution(job_id, executor_id, targets=targets)
    store.executions.make_due(execution, float(executor_id))
    execution.save()
    ended = float(executor_id)
    ends = [End(position, True, ended + position / 7) for position in range(_TARGETS)]
    store.counts.add_ends(job_id, executor_id, 0, ends, ended + 10**6)


if __name__ == "__main__":
    if _INNER in sys.argv:
        _measure(int(sys.argv[-1]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
