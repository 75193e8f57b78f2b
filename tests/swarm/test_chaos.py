"""Workers are killed at random while commands run: nothing runs twice, nothing stays under way.

`make chaos N=1000` kills that often, and shows the numbers.
"""

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.states import Reason, Status
from dev.engine import docker
from tests.support.waiting import wait_until
from tests.swarm.chaos import (
    EXEC_MEMORY,
    FILE,
    KILL_PAUSE,
    Chaos,
    End,
    Start,
    Witness,
    health_checks,
)
from tests.swarm.conftest import (
    Cluster,
    serve,
    stop_workers,
    system_on,
    upkeep,
)
from worker.target.watch import why_lost

KILLS = int(os.environ.get("N") or 30)
# A target is adopted a minute after its worker's death, and that one may have been killed as well.
QUIET_SECONDS = 300

GIVEN_UP = 127
# From when on the worker that ended a target had followed the engine's events.
FOLLOWED_SINCE = re.compile(r"began to follow its events, at (\S+)$")
# How an exit code can be lost. The engine's last events are its ring.
LOST_IN_RING = "lost, though the worker came up when it stood in the ring"
LEFT_RING = "lost, as it had left the ring when the worker came up"
GIVEN_UP_BY_ENGINE = "lost, as the engine had given the command up"
FORGOTTEN = "lost, as the engine had forgotten the command"
EXCUSES = (LEFT_RING, GIVEN_UP_BY_ENGINE, FORGOTTEN)

Result = dict[str, Any]


class Judge:
    """Holds results against what the engines and the containers say."""

    def __init__(self, ends: dict[str, End], lines: dict[str, Counter[str]]) -> None:
        self.numbers = Counter(dict.fromkeys((LOST_IN_RING, *EXCUSES), 0))
        self.without_code: list[str] = []
        self.violations: list[str] = []
        self._ends = ends
        self._lines = lines

    def hear(self, start: Start, result: Result) -> None:
        """Judges one result."""
        self.numbers["targets"] += 1
        self.numbers[result.get("Reason") or result["Status"]] += 1
        self.numbers["output incomplete"] += bool(result.get("OutputIncomplete"))
        if wrong := self._wrong(start, result):
            self.violations.append(f"{wrong}: {start} {result}")

    def _wrong(self, start: Start, result: Result) -> str | None:
        ran = self._lines[result["ContainerId"]][start.mark]
        end = self._ends.get(result.get("ID", ""))
        if ran > 1:
            return f"ran {ran} times"
        if result["Status"] != Status.FINISHED:
            return self._wrong_without_code(start, result, ran, end)
        if ran == 0:
            return "finished, and never ran"
        return None if end and end.exit_code == result["ExitCode"] else f"not the code of {end}"

    def _wrong_without_code(
        self, start: Start, result: Result, ran: int, end: End | None
    ) -> str | None:
        """An exit code may be missing only if there was none, or if the engine no longer had it."""
        self.without_code.append(f"{result.get('E')}: {end}, at {result['EndTime']}")
        if result.get("Reason") == Reason.EXPIRED:
            return "expired, but it ran" if ran or end else None
        if result.get("Reason") != Reason.LOST or end is None:
            return f"no exit code, but {end}"
        how = self._how_lost(start, result, end)
        self.numbers[how] += 1
        return None if how in EXCUSES else how

    def _how_lost(self, start: Start, result: Result, end: End) -> str:
        """Why nobody knows the exit code: by the engine's events, not by the result."""
        if end.told + EXEC_MEMORY < result["EndTime"]:
            return FORGOTTEN
        if not start.may_be_cut_off:
            return "lost, though the engine told it itself"
        # A 127 of a command that nobody reads is not believed: engines say so if they lose sight of it.
        if end.exit_code == GIVEN_UP:
            return GIVEN_UP_BY_ENGINE
        followed = FOLLOWED_SINCE.search(result["E"])
        # Seconds, rounded down.
        came_up = datetime.fromisoformat(followed[1]).timestamp() + 1 if followed else 0
        return LOST_IN_RING if end.dropped > came_up else LEFT_RING

    def close(self, start: Start, results: list[Result], stored: dict[str, int]) -> None:
        """Judges the counters with which the execution was closed."""
        succeeded = sum(result.get("ExitCode") == 0 for result in results)
        total = len(start.targets)
        expected = {"Total": total, "Succeeded": succeeded, "Failed": total - succeeded}
        if stored != expected:
            self.violations.append(f"closed with {stored} in place of {expected}: {start}")


@contextmanager
def watching(system: Cluster) -> Iterator[list[Witness]]:
    """Follows the events of all engines."""
    witnesses = [Witness(node) for node in system.swarm.nodes]
    for witness in witnesses:
        witness.start()
    try:
        yield witnesses
    finally:
        for witness in witnesses:
            witness.stop()


def lines(system: Cluster) -> dict[str, Counter[str]]:
    """What the commands left in each container."""
    return {
        container: Counter(docker(node.docker_host, "exec", container, "cat", FILE).split())
        for node in system.swarm.nodes
        for container in node.containers()
    }


def logged(logs: Iterable[Path], event: str) -> int:
    """How often that event is in these logs."""
    return sum(log.read_text().count(f'"{event}"') for log in logs)


def judged(system: Cluster, chaos: Chaos, witnesses: list[Witness]) -> Judge:
    """The judgement on all that was started."""
    ends = {id: end for witness in witnesses for id, end in witness.ends().items()}
    judge = Judge(ends, lines(system))
    for start in chaos.starts:
        results = system.inspect(start.job_id, start.executor_id)
        for result in results:
            judge.hear(start, result)
        judge.close(start, results, system.counters(start.job_id, start.executor_id))
    judge.numbers["kills"] = chaos.kills
    judge.numbers["starts"] = len(chaos.starts)
    judge.numbers["adoptions"] = logged(system.directory.glob("worker-*.log"), "adopting")
    judge.numbers["dead letters"] = logged([system.directory / "upkeep.log"], "dead letter")
    return judge


@pytest.fixture
def system(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A separate system on the cluster's engines; only upkeep runs yet."""
    with system_on(cluster.swarm, tmp_path) as system:
        serve(system)
        stop_workers(system)
        with upkeep(system):
            yield system


@pytest.mark.parametrize(
    ("came_up", "code", "prints", "excused"),
    [
        # It ended in second 1000, and its event was in the ring up to second 1030.
        (900, 3, True, False),
        (1010, 3, True, False),
        (1040, 3, True, True),
        # Nothing was cut off.
        (1040, 3, False, False),
        (1010, 127, True, True),
    ],
)
def test_a_lost_code_is_excused_only_if_nobody_could_know_it(
    came_up: int, code: int, prints: bool, excused: bool
) -> None:
    since = datetime.fromtimestamp(came_up, UTC).isoformat()
    start = Start("m", code, prints, "j1", "1", [])
    result = {
        "ContainerId": "c1",
        "ID": "e1",
        "Status": "RUNNING_FAILED",
        "Reason": "lost",
        "EndTime": 1060,
        "E": why_lost(None, since),
    }
    judge = Judge({"e1": End(code, 1000, 1030)}, defaultdict(lambda: Counter({"m": 1})))
    judge.hear(start, result)
    assert bool(judge.violations) is not excused


@pytest.mark.timeout(300 + QUIET_SECONDS + 10 * KILL_PAUSE * KILLS)
def test_whatever_is_killed_nothing_runs_twice_and_nothing_is_lost(system: Cluster) -> None:
    began = time.monotonic()
    chaos = Chaos(system)
    with health_checks(system.swarm), watching(system) as witnesses:
        try:
            chaos.run(KILLS)
            print(f"{chaos.kills} kills in {time.monotonic() - began:.0f} s")
            wait_until(
                lambda: not system.open(),
                QUIET_SECONDS,
                lambda: f"{system.open()} executions are open",
            )
        finally:
            chaos.end()
    judge = judged(system, chaos, witnesses)
    print(
        f"{time.monotonic() - began:.0f} s",
        *sorted(judge.numbers.items()),
        *judge.without_code,
        sep="\n",
    )
    assert not judge.violations, "\n".join(judge.violations)
    assert judge.numbers["dead letters"] == 0
    assert judge.numbers["adoptions"] > 0
