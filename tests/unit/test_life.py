"""A target's life under any order of events: nothing starts twice, no end is left, every target ends.

LIFE_EXAMPLES says how many orders are tried: 10, and 40 in `make test`.
The engine is a model of what docs/failure.md says of its memory. The tables are moto's; Runner and upkeep
are the real ones. A worker dies at a chosen step by a `Death`, which no code of ours catches.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.domain import targets
from chalicelib.domain.ends import unite
from chalicelib.domain.states import TERMINAL, Reason, Status
from chalicelib.services import closing, upkeep
from chalicelib.store.models import Result
from tests.support.builders import build_execution, build_targets, serve_node
from tests.support.clock import Clock
from worker.engine.errors import AlreadyStarted, Refusal, UnknownExec, Unreachable
from worker.engine.events import ExitCodes
from worker.engine.stream import Frame
from worker.health import Pulse
from worker.output.outputs import Outputs
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader
from worker.settler import _count_part
from worker.target.command import Commands
from worker.target.run import Runner, StartUnheard

# One container, as three targets spell it; the first is its long id.
CONTAINERS, NODE = ("c123", "c1", "web"), "n1"
# Where a worker may die: before or after each of its writes and calls.
STEPS = ("take", "create", "claim", "start", "append", "end", "count", "report")
DEATHS = [None, *((step, when) for step in STEPS for when in ("before", "after"))]


class Death(BaseException):
    """The worker's process ends here."""


class ModelEngine:
    """An engine's memory: execs by id, each made, running, over with a code, or forgotten."""

    def __init__(self) -> None:
        self.execs: dict[str, int | str] = {}
        self.starts: list[str] = []
        self.reachable = True

    def _answer(self) -> None:
        if not self.reachable:
            raise Unreachable("away")

    def inspect_container(self, container_id: str) -> dict[str, Any]:
        self._answer()
        return {"Id": CONTAINERS[0]}

    def create(self, *arguments: object) -> str:
        self._answer()
        exec_id = uuid4().hex
        self.execs[exec_id] = "made"
        return exec_id

    def start(self, exec_id: str) -> Iterator[Frame]:
        self._answer()
        if exec_id not in self.execs:
            raise Refusal(Reason.CONTAINER_GONE, "no such exec")
        if self.execs[exec_id] != "made":
            raise AlreadyStarted
        self.starts.append(exec_id)
        self.execs[exec_id] = 3
        yield 1, b"output\n"

    def inspect(self, exec_id: str) -> dict[str, Any]:
        self._answer()
        if exec_id not in self.execs:
            raise UnknownExec
        state = self.execs[exec_id]
        code = state if isinstance(state, int) else None
        process = {"entrypoint": "true", "arguments": []}
        return {"ID": exec_id, "Running": False, "ExitCode": code, "ProcessConfig": process}


class Life(RuleBasedStateMachine):
    """Deliveries, deaths, restarts and the passing of time, in any order."""

    # Then all targets are in one part.
    most_in_part = len(CONTAINERS)

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock, self.engine = Clock(most_sleeps=10**6), ModelEngine()
        self.death: tuple[str, str] | None = None
        self.ends: dict[str, tuple[str, ...]] = {}
        self.directory = Path(tempfile.mkdtemp())
        self.clock.install(self.patch)
        self.patch.setattr(targets, "MOST_IN_PART", self.most_in_part)
        self._mortal(self.engine, "create", "create")
        self._mortal(self.engine, "start", "start")
        self._mortal(store.results, "take_container", "take")
        self._mortal(store.results, "add_result", "claim")
        self._mortal(store.results, "move_result", "end")
        self._mortal(logs, "assemble", "append")
        self.reports: list[str] = []
        self.patch.setattr(queues, "report_ended", self._report)
        self._mortal(store.counts, "add_ends", "count")
        self._mortal(queues, "report_ended", "report")

    def _report(self, job_id: str, executor_id: str) -> None:
        self.reports.append(f'{{"JobId": "{job_id}", "ExecutorId": "{executor_id}"}}')

    def _mortal(self, owner: Any, name: str, step: str) -> None:
        """The worker may die right before and right after this call."""
        call = getattr(owner, name)

        def dying(*arguments: Any) -> Any:
            if self.death == (step, "before"):
                raise Death
            answer = call(*arguments)
            if step == "start":
                answer = (frame for frame in list(answer))
            if self.death == (step, "after"):
                raise Death
            return answer

        self.patch.setattr(owner, name, dying)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.directory)

    @initialize()
    def accept(self) -> None:
        self.job_id, self.executor_id = str(uuid4()), f"{self.clock.now:.6f}"
        ids, requested = (self.job_id, self.executor_id), build_targets(*CONTAINERS, node=NODE)
        execution = build_execution(*ids, targets=requested, MayRunAsRoot=True)
        store.executions.make_due(execution, upkeep.first_look(execution))
        execution.save()
        self.heartbeat()

    def heartbeat(self) -> None:
        serve_node(NODE, self.clock.now)

    @rule(container=st.sampled_from(CONTAINERS), first=st.booleans(), death=st.sampled_from(DEATHS))
    def deliver(self, container: str, first: bool, death: tuple[str, str] | None) -> None:
        """A message comes: the first, a second one, or one that was in a dead worker's hands."""
        part = self.part_of(container)
        target = TargetMessage(self.job_id, self.executor_id, container, part=part)
        self.death = death
        spools = SpoolDirectory(self.directory, 10**6, 10**6)
        try:
            with suppress(Death, StartUnheard, Unreachable):
                # No command of the model prints after its reader is gone: nobody asks for events.
                exit_codes = create_autospec(ExitCodes, instance=True)
                commands = Commands()
                commands.hold(target)
                outputs = Outputs(spools, Uploader(Pulse()), Salvager(self.directory))
                runner = Runner(self.engine, exit_codes, NODE, commands, outputs, True)  # type: ignore[arg-type]
                end = runner.run(Received(target, uuid4().hex, "r", first))
                assert end
                _count_part(self.job_id, self.executor_id, end.part, [end])
        finally:
            self.death = None
            spools.close()

    @rule(seconds=st.sampled_from([30, 200, 700, 4000]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def worker_lives(self) -> None:
        self.heartbeat()

    @rule()
    def close(self) -> None:
        """A report may come twice, late, or never."""
        assert not closing.close_ended(dict(enumerate(self.reports)))  # type: ignore[arg-type]

    @rule()
    def look_after(self) -> None:
        upkeep.take_turn()

    @rule(container=st.sampled_from(CONTAINERS))
    def dead_letter(self, container: str) -> None:
        ids = f'"JobId": "{self.job_id}", "ExecutorId": "{self.executor_id}"'
        part = self.part_of(container)
        upkeep.end_dead_letter(f'{{{ids}, "ContainerId": "{container}", "Part": {part}}}')

    @rule()
    @precondition(lambda self: self.engine.execs)
    def engine_forgets(self) -> None:
        self.engine.execs.clear()

    @invariant()
    def nothing_starts_twice(self) -> None:
        assert len(self.engine.starts) <= 1

    @invariant()
    def no_end_is_left(self) -> None:
        for container, result in self.results().items():
            if result.Status in TERMINAL:
                end = (result.Status, str(result.Reason), str(result.EndTime))
                assert self.ends.setdefault(container, end) == end
        assert self.ends.keys() <= self.results().keys()

    @invariant()
    def only_what_is_over_is_counted(self) -> None:
        counts = unite(store.counts.get_counts(self.job_id, self.executor_id).values())
        for position, container in enumerate(CONTAINERS):
            if position in counts:
                assert container in self.ends
        # The model's commands end with 3.
        assert not counts.succeeded

    def results(self) -> dict[str, Result]:
        parts = {self.part_of(container) for container in CONTAINERS}
        found = store.results.get_results(self.job_id, self.executor_id, parts)
        assert all(self.part_of(container) == part for part, container in found)
        return {container: result for (_, container), result in found.items()}

    def part_of(self, container: str) -> int:
        return CONTAINERS.index(container) // self.most_in_part

    @invariant()
    def an_exit_code_is_the_commands_own(self) -> None:
        for result in self.results().values():
            if result.Status == Status.FINISHED:
                assert result.Inspect["ExitCode"] == 3
                assert self.engine.starts == [result.ID]

    @invariant()
    def one_container_is_one_target(self) -> None:
        taken_up = [result for result in self.results().values() if result.ID]
        assert len(taken_up) <= 1

    @invariant()
    def counters_add_up(self) -> None:
        execution = store.executions.get_execution(self.job_id, self.executor_id)
        if not execution.Open:
            results = self.results()
            assert results.keys() == set(CONTAINERS)
            assert {result.Status for result in results.values()} <= TERMINAL
            assert execution.Total == execution.Succeeded + execution.Failed == 3

    @rule()
    def everything_ends(self) -> None:
        """Whatever happened: when messages come and upkeep runs, the target ends and is closed."""
        for _ in range(4):
            for container in CONTAINERS:
                self.deliver(container, False, None)
            self.clock.now += 800
            upkeep.take_turn()
        assert not store.executions.get_execution(self.job_id, self.executor_id).Open


class LifeInParts(Life):
    """Each spelling of the container is in a part of its own."""

    most_in_part = 1


@pytest.mark.usefixtures("aws")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("life", [Life, LifeInParts])
# A worker that dies in its reading thread.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_order_of_events_starts_a_second_exec_or_leaves_an_end(life: type[Life]) -> None:
    run_state_machine_as_test(
        life,
        settings=settings(
            max_examples=int(os.environ.get("LIFE_EXAMPLES") or 10),
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
