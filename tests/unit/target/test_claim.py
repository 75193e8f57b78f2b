"""How a target is claimed: which messages count, what may run, and that only one exec can start."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.states import Reason, Status
from chalicelib.domain.targets import Part, in_order
from chalicelib.store.models import Result
from tests.support.builders import build_message, build_targets
from tests.support.clock import NOW
from tests.unit.target.life import (
    SECRET,
    HeldRunner,
    accepted,
    again,
    claimed,
    claimed_during_the_create,
    container,
    make_unreadable,
    stored,
)
from worker.engine.errors import Refusal, Unreachable
from worker.engine.stream import Frame

pytestmark = pytest.mark.usefixtures("aws", "clock")


@pytest.mark.parametrize("line", ["echo #'\nhi'", "# nothing but a comment", "'' a"])
def test_a_command_that_no_longer_splits_fails_and_says_so(
    runner: HeldRunner, engine: Any, line: str
) -> None:
    """Above all, a secret argument must not become the program."""
    message = accepted(NOW, Cmd=line)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.COMMAND_INVALID)
    assert "does not split" in result.E
    engine.create.assert_not_called()


def test_a_forbidden_target_is_neither_taken_nor_created(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.inspect_container.side_effect = lambda id: container("long", CapAdd=["SYS_ADMIN"])
    mortal = accepted(NOW + 1, MayRunAsRoot=None, Privileged=False)
    runner.run(mortal)
    result = stored(mortal)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.FORBIDDEN)
    engine.create.assert_not_called()
    assert store.results.get_results("j1", mortal.target.executor_id, [0]).keys() == {(0, "c1")}
    runner.run(message)
    assert stored(message).Status == Status.FINISHED


def test_without_root_the_exec_gets_the_user_number_that_was_checked(
    runner: HeldRunner, engine: Any
) -> None:
    runner.run(accepted(NOW, MayRunAsRoot=None, Privileged=False))
    engine.create.assert_called_once_with("c1", ["echo", "hi", SECRET], ["A=b"], "1000", False)


@pytest.mark.parametrize(
    "fields",
    [
        {"targets": build_targets("c2")},
        {"targets": build_targets("c1", node="n2")},
        {"refused": ("n1",)},
    ],
    ids=["another container", "another node", "a node that was refused"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_message_of_no_target_is_dropped(
    runner: HeldRunner, engine: Any, fields: dict[str, Any], first: bool
) -> None:
    forged = accepted(NOW, **fields)
    runner.run(forged if first else again(forged))
    engine.inspect_container.assert_not_called()
    engine.create.assert_not_called()
    assert store.results.get_results("j1", forged.target.executor_id, [0]) == {}


def by_container(job_id: str, executor_id: str) -> dict[str, Result]:
    """The results of an execution that has one part."""
    found = store.results.get_results(job_id, executor_id, [0])
    return {container: result for (_, container), result in found.items()}


def parts_of(executor_id: str) -> list[Part]:
    return store.targets.get_parts(store.executions.get_execution("j1", executor_id))


def spelled(*ids: str) -> list[Received]:
    """An execution for these containers, and its messages."""
    (message,) = [accepted(NOW, targets=build_targets(*ids))]
    ours = message.target
    return [
        Received(TargetMessage("j1", ours.executor_id, id), id, "receipt", first=True) for id in ids
    ]


@pytest.mark.parametrize("ids", [*itertools.permutations(["c1", "name", "long"])], ids=str)
def test_one_container_runs_once_however_it_is_spelled(
    runner: HeldRunner, engine: Any, ids: tuple[str, ...]
) -> None:
    engine.inspect_container.side_effect = lambda id: container("long")
    for message in spelled(*ids):
        runner.run(message)
    engine.start.assert_called_once()
    results = by_container("j1", message.target.executor_id)
    assert results[ids[0]].Status == Status.FINISHED
    for second in ids[1:]:
        result = results[second]
        assert (result.Status, result.Reason) == (
            Status.CREATE_FAILED,
            Reason.CONTAINER_REPEATED,
        )
        assert f"already the target {ids[0]}" in result.E


@pytest.mark.parametrize("order", [*itertools.permutations([0, 1, 2])], ids=str)
@pytest.mark.parametrize("ids", [("c1", "name", "long"), ("c1", "name", "other")], ids=str)
def test_one_container_runs_once_though_spellings_are_in_several_parts(
    runner: HeldRunner, engine: Any, ids: tuple[str, ...], order: tuple[int, ...]
) -> None:
    """Three spellings, each in a part of its own. One of them may be the long id, or none."""
    engine.inspect_container.side_effect = lambda id: container("long")
    others = [f"x{number}" for number in range(29)]
    first, second, third = ([*(f"{one}{id}" for one in others), id] for id in ids)
    targets = build_targets("before", *first, "between", "beyond", *second, *third)
    accepted(NOW, targets=[("n0", f"y{number}") for number in range(20)] + targets)
    executor_id = f"{NOW:.6f}"
    parts = {target.container_id: target.part for target in in_order(parts_of(executor_id))}
    assert len({parts[id] for id in ids}) == 3
    for index in order:
        target = TargetMessage("j1", executor_id, ids[index], part=parts[ids[index]])
        runner.run(Received(target, ids[index], "receipt", first=True))
    engine.start.assert_called_once()
    found = [store.results.get_result("j1", executor_id, parts[id], id) for id in ids]
    statuses = [result.Status for result in found if result]
    assert statuses.count(Status.FINISHED) == 1
    assert statuses.count(Status.CREATE_FAILED) == 2
    assert found[order[0]].Status == Status.FINISHED  # type: ignore[union-attr]


def test_a_death_between_take_and_claim_leaves_the_container_its_target(
    runner: HeldRunner, engine: Any
) -> None:
    engine.inspect_container.side_effect = lambda id: container("long")
    short, long = spelled("c1", "long")
    engine.create.side_effect = Unreachable
    with pytest.raises(Unreachable):
        runner.run(short)
    engine.create.side_effect = None
    runner.run(long)
    engine.start.assert_not_called()
    runner.run(again(short))
    results = by_container("j1", short.target.executor_id)
    assert results["c1"].Status == Status.FINISHED
    assert results["long"].Reason == Reason.CONTAINER_REPEATED


def test_the_claim_is_stored_before_the_exec_starts(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        assert (stored(message).Status, stored(message).ID) == (Status.CREATED, exec_id)
        assert stored(message).ExpiresAt == NOW + 1000
        yield 1, b"started"

    engine.start.side_effect = start
    runner.run(message)
    assert stored(message).Output == b"started"


def test_a_worker_that_loses_the_claim_never_starts_its_own_exec(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    claimed(message)
    engine.create.return_value = "e2"
    runner.run(message)
    engine.start.assert_not_called()
    assert (stored(message).ID, stored(message).Status) == ("e1", Status.FINISHED)


def test_an_expired_target_gets_no_exec(runner: HeldRunner, engine: Any) -> None:
    late = accepted(NOW - 601)
    runner.run(late)
    engine.create.assert_not_called()
    assert (stored(late).Status, stored(late).Reason) == (Status.CREATE_FAILED, Reason.EXPIRED)


def test_a_refusal_is_kept_without_secrets(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.create.side_effect = Refusal(Reason.CONTAINER_PAUSED, f"no: {SECRET} " + "x" * 9000)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.CONTAINER_PAUSED)
    assert result.E.startswith("no: ***")
    assert len(result.E) == 2000
    engine.start.assert_not_called()


def test_a_message_of_a_finished_target_does_nothing(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    runner.run(message)
    engine.reset_mock()
    runner.run(again(message))
    engine.create.assert_not_called()
    engine.start.assert_not_called()


def test_a_message_that_comes_again_before_any_claim_runs(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    runner.run(again(message))
    assert stored(message).Status == Status.FINISHED


def test_a_target_at_its_deadline_still_runs(runner: HeldRunner, engine: Any) -> None:
    just = accepted(NOW - settings.delivery_deadline_seconds)
    runner.run(just)
    assert stored(just).Status == Status.FINISHED


def test_a_claim_that_is_lost_after_the_create_starts_nothing(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    claimed_during_the_create(engine, message)
    runner.run(message)
    engine.start.assert_not_called()
    assert stored(message).ID == "e1"


def test_an_unreachable_engine_leaves_the_target_for_later(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.create.side_effect = Unreachable
    with pytest.raises(Unreachable):
        runner.run(message)
    assert store.results.get_result("j1", message.target.executor_id, 0, "c1") is None


@pytest.mark.parametrize("end", ["FINISHED", "CREATE_FAILED", "RUNNING_FAILED"])
def test_a_message_of_a_target_that_is_over_asks_the_engine_nothing(
    runner: HeldRunner, engine: Any, message: Received, end: str
) -> None:
    claimed(message, Status(end))
    runner.run(again(message))
    assert engine.mock_calls == []
    assert stored(message).Status == end


def test_a_message_of_an_unknown_execution_is_dropped(runner: HeldRunner, engine: Any) -> None:
    runner.run(build_message())
    assert engine.mock_calls == []
    assert store.results.get_result("j1", "1.000000", 0, "c1") is None


def test_unreadable_secrets_fail_the_target_before_the_engine_is_asked(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    make_unreadable(message)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.SECRETS_UNREADABLE)
    assert engine.mock_calls == []
