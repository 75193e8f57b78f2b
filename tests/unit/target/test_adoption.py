"""How a target goes on that another worker took up: it is never started twice, and always ends."""

from pathlib import Path
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import logs, sealing
from chalicelib.clients.queues import Received
from chalicelib.config import settings
from chalicelib.domain.segments import Segment, log_name
from chalicelib.domain.states import Reason, Status
from chalicelib.store.models import Result
from tests.support.clock import NOW, Clock
from tests.unit.target.life import (
    OVER,
    SECRET,
    HeldRunner,
    accepted,
    again,
    claimed,
    claimed_during_the_create,
    inspected,
    make_unreadable,
    printing,
    stored,
)
from worker.engine.errors import AlreadyStarted, UnknownExec, Unreachable
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.target import adopt, run, watch
from worker.target.run import StartUnheard

pytestmark = pytest.mark.usefixtures("aws", "clock")


def test_an_exec_that_was_never_started_is_started(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    claimed(message)
    engine.inspect.side_effect = [{**OVER, "ExitCode": None}, OVER]
    runner.run(again(message))
    engine.start.assert_called_once_with("e1")
    assert (stored(message).Status, stored(message).Output) == (Status.FINISHED, b"hi\n")


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_an_exec_that_runs_is_awaited_and_not_started(
    runner: HeldRunner, engine: Any, message: Received, status: Status
) -> None:
    claimed(message, status)
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 5}]
    runner.run(again(message))
    engine.start.assert_not_called()
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 5)
    assert result.OutputIncomplete is True


@pytest.mark.parametrize(
    ("told", "reason", "says"),
    [
        (7, None, None),
        (None, Reason.LOST, "2027-01-15T08:00:00"),
        # The engine had lost sight of it: this is not the command's exit code.
        (127, Reason.LOST, "127"),
    ],
)
def test_126_of_a_command_that_lost_its_reader_is_not_believed(
    runner: HeldRunner,
    engine: Any,
    exit_codes: Any,
    message: Received,
    told: int | None,
    reason: Reason | None,
    says: str | None,
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    exit_codes.wait_for.return_value = told
    runner.run(again(message))
    result = stored(message)
    assert result.Reason == reason
    assert says in result.E if says else result.Inspect["ExitCode"] == told


def test_127_of_a_process_is_believed(runner: HeldRunner, engine: Any, message: Received) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 127}
    runner.run(again(message))
    assert stored(message).Inspect["ExitCode"] == 127


def test_126_of_a_command_that_still_runs_is_not_its_end(
    runner: HeldRunner, engine: Any, exit_codes: Any, message: Received
) -> None:
    """The engine says so of a command that printed to both of its streams without a reader."""
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    engine.is_alive.side_effect = [True, True, False]
    exit_codes.wait_for.return_value = 7
    runner.run(again(message))
    assert stored(message).Inspect["ExitCode"] == 7
    engine.is_alive.assert_called_with("c1", 7)


def test_a_start_costs_three_engine_calls_also_when_adopted(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    never = {**OVER, "Running": False, "ExitCode": None, "Pid": 0}
    runner.run(message)
    assert calls(engine) == ["create", "start", "inspect"]
    engine.reset_mock()
    late = accepted(NOW - 1)
    claimed(late)
    engine.inspect.side_effect = [never, dict(OVER)]
    runner.run(again(late))
    assert calls(engine) == ["inspect", "start", "inspect"]


def calls(engine: Any) -> list[str]:
    """What was asked of the engine about the exec: all but whether the container is one to run in."""
    about = ("create", "start", "inspect", "is_alive", "follow_ends")
    return [name for name, _, _ in engine.method_calls if name in about]


def test_an_engine_that_is_gone_for_good_ends_its_targets(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_ENGINE_GONE_SECONDS", 60)
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = [{**OVER, "Running": True}, *[Unreachable] * 100]
    runner.run(again(message))
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert engine.inspect.call_count < 50


def test_an_engine_that_answers_in_between_is_not_gone_for_good(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_ENGINE_GONE_SECONDS", 60)
    claimed(message, Status.RUNNING)
    away, running = [Unreachable] * 25, {**OVER, "Running": True}
    engine.inspect.side_effect = [*away, running, *away, OVER]
    runner.run(again(message))
    assert stored(message).Status == Status.FINISHED


def test_loser_of_the_claim_adopts_if_it_holds_the_only_message(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    """Another worker took the target up by the same message, which it could not hold."""
    claimed_during_the_create(engine, message)
    engine.inspect.return_value = {**OVER, "ExitCode": 5}
    runner.run(again(message))
    result = stored(message)
    assert (result.ID, result.Status, result.Inspect["ExitCode"]) == ("e1", Status.FINISHED, 5)
    engine.start.assert_not_called()


@pytest.mark.parametrize(("looks", "patience"), [(0, 0), (8, adopt._DOUBTFUL_OWNER_SECONDS)])
def test_an_end_that_comes_under_watch_is_first_left_to_its_owner(
    runner: HeldRunner, engine: Any, message: Received, clock: Clock, looks: int, patience: float
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = [*[{**OVER, "Running": True}] * looks, OVER]
    runner.run(again(message))
    assert stored(message).Status == Status.FINISHED
    pauses = [
        min(watch._FIRST_PAUSE_SECONDS * 2**look, watch._LONGEST_PAUSE_SECONDS)
        for look in range(looks)
    ]
    assert patience <= sum(clock.sleeps) - sum(pauses) <= patience + adopt._LOOK_SECONDS


@pytest.mark.parametrize(("code", "told"), [(None, "how it ended is lost"), (7, "ended with 7")])
def test_an_exec_that_the_engine_forgot_is_lost(
    runner: HeldRunner, engine: Any, exit_codes: Any, message: Received, code: int | None, told: str
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = UnknownExec
    exit_codes.find.return_value = code
    runner.run(again(message))
    assert (stored(message).Status, stored(message).Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert told in stored(message).E
    engine.start.assert_not_called()


def test_a_worker_that_starts_second_waits_for_the_first(
    runner: HeldRunner, engine: Any, message: Received, clock: Clock
) -> None:
    engine.start.side_effect = AlreadyStarted
    runner.run(message)
    assert stored(message).Status == Status.FINISHED
    assert stored(message).OutputIncomplete is True
    # Real time passes too, so it may sleep a little less than the owner's seconds.
    assert sum(clock.sleeps) > adopt._LIVING_OWNER_SECONDS / 2


def test_a_refused_start_of_an_exec_that_never_ran_comes_again(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    """The engine contradicts itself; nobody may say how the command ended."""
    engine.start.side_effect = AlreadyStarted
    engine.inspect.return_value = {**OVER, "ExitCode": None}
    with pytest.raises(AlreadyStarted):
        runner.run(message)
    assert stored(message).Status == Status.CREATED
    engine.start.assert_called_once()


@pytest.mark.parametrize("late", [False, True])
def test_a_claimed_exec_is_not_started_long_after_the_deadline(
    runner: HeldRunner, engine: Any, late: bool
) -> None:
    old = accepted(NOW - settings.delivery_deadline_seconds - run._START_GRACE_SECONDS - late)
    claimed(old)
    never_started = {**OVER, "ExitCode": None}
    engine.inspect.side_effect = [never_started, OVER]
    runner.run(again(old))
    assert engine.start.called is not late
    assert stored(old).Reason == (Reason.EXPIRED if late else None)
    assert stored(old).Status == (Status.RUNNING_FAILED if late else Status.FINISHED)


def test_a_living_owner_stores_the_end_itself(
    runner: HeldRunner,
    engine: Any,
    message: Received,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    """A worker with a second message waits for it, since the owner has all of the output."""
    claimed(message, Status.RUNNING)
    get = store.results.get_result
    asked = []

    def ends_meanwhile(*key: Any) -> Result | None:
        asked.append(sum(clock.sleeps))
        if len(asked) == 4:
            owned = get(*key)
            assert owned
            owned.Status, owned.Output, owned.Inspect = Status.FINISHED, b"whole", OVER
            store.results.move_result(owned)
        return get(*key)

    monkeypatch.setattr(store.results, "get_result", ends_meanwhile)
    runner.run(message)
    assert (stored(message).Output, stored(message).OutputIncomplete) == (b"whole", None)


def test_an_owner_that_stores_no_end_in_time_is_taken_for_dead(
    runner: HeldRunner, message: Received, clock: Clock
) -> None:
    claimed(message, Status.RUNNING)
    runner.run(message)
    assert (stored(message).Status, stored(message).OutputIncomplete) == (Status.FINISHED, True)
    assert sum(clock.sleeps) >= adopt._LIVING_OWNER_SECONDS


def test_an_adopted_end_is_stored_through_an_outage_of_kms(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(message, Status.RUNNING)
    open_sealed, failures = sealing.open_sealed, iter([True, True])

    def stumbling(job_id: str, sealed: sealing.Sealed) -> str:
        if next(failures, False):
            raise ConnectionError
        return open_sealed(job_id, sealed)

    monkeypatch.setattr(sealing, "open_sealed", stumbling)
    runner.run(again(message))
    assert inspected(message)["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]


def test_an_adopted_exec_that_is_over_has_its_code_and_stored_output(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    claimed(message, Status.RUNNING)
    store.segments.add(log_name(*message.target.ids), Segment(0, 6, b"so far"), int(NOW) + 100)
    engine.inspect.return_value = {**OVER, "ExitCode": 3}
    runner.run(again(message))
    engine.start.assert_not_called()
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"], result.Output) == ("FINISHED", 3, b"so far")
    assert (result.OutputSize, result.OutputIncomplete) == (6, True)
    assert inspected(message)["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]


def test_what_a_dead_worker_had_on_this_disk_is_in_the_adopted_log(
    runner: HeldRunner, message: Received, tmp_path: Path
) -> None:
    name = log_name(*message.target.ids)
    store.segments.add(name, Segment(0, 6, b"so far"), int(NOW) + 100)
    dead = SpoolDirectory(tmp_path, 10**6, 10**6)
    dead.open("e1", name, int(NOW) + 100, 10, None).write(b"so far, and more")
    dead._lock.close()
    claimed(message, Status.RUNNING)
    runner.run(again(message))
    result = stored(message)
    assert (result.Output, result.OutputIncomplete) == (b"so far, and more", True)


def test_a_spool_that_cannot_be_salvaged_does_not_cost_what_was_uploaded(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(salvager: Salvager, log: str) -> None:
        raise OSError("input/output error")

    name = log_name(*message.target.ids)
    store.segments.add(name, Segment(0, 6, b"so far"), int(NOW) + 100)
    monkeypatch.setattr(Salvager, "salvage", broken)
    claimed(message, Status.RUNNING)
    runner.run(again(message))
    assert stored(message).Output == b"so far"


@pytest.mark.parametrize("content", [b"x" * 9000, b"\xff"])
def test_the_adopted_log_is_one_object_if_the_result_cannot_hold_it(
    runner: HeldRunner, message: Received, content: bytes
) -> None:
    name = log_name(*message.target.ids)
    store.segments.add(name, Segment(0, len(content), content), int(NOW) + 100)
    claimed(message, Status.RUNNING)
    runner.run(again(message))
    assert stored(message).OutputSize == len(content)
    assert store.segments.get_state(name).assembled == len(content)
    assert logs.read(logs.whole_key(name, len(content)), 10**6) == content


def test_a_log_that_cannot_be_read_does_not_cost_the_exit_code(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then how much of the output the former worker stored."""

    def refuse(log: str) -> Any:
        raise ConnectionError

    monkeypatch.setattr(store.segments, "list_segments", refuse)
    claimed(message, Status.RUNNING)
    runner.run(again(message))
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 0)
    assert (result.OutputIncomplete, result.OutputSize, result.Output) == (True, None, None)


@pytest.mark.parametrize("code", [0, None])
def test_an_adopted_exec_with_unreadable_secrets_shows_nothing(
    runner: HeldRunner, engine: Any, message: Received, code: int | None
) -> None:
    make_unreadable(message)
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": code}
    runner.run(again(message))
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.SECRETS_UNREADABLE)
    assert result.Inspect is None
    # Without an exit code it never started: it had no output.
    assert result.OutputIncomplete is (None if code is None else True)


def test_only_an_adoption_gives_its_place_back(runner: HeldRunner, engine: Any) -> None:
    given_back: list[str] = []
    for kind, earlier in (("start", 0), ("adoption", 1), ("end", 1)):
        message = accepted(NOW - earlier)
        if kind == "adoption":
            claimed(message)
        runner.run(again(message), lambda kind=kind: given_back.append(kind))  # type: ignore[misc]
    assert given_back == ["adoption"]


def test_a_start_the_engine_never_heard_is_made_at_the_next_delivery(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Unreachable("connection refused")
    engine.inspect.return_value = {**OVER, "ExitCode": None}
    with pytest.raises(StartUnheard):
        runner.run(message)
    engine.start.side_effect = printing((1, b"hi\n"))
    engine.inspect.side_effect = [{**OVER, "ExitCode": None}, OVER]
    runner.run(again(message))
    assert (stored(message).Status, stored(message).Output) == (Status.FINISHED, b"hi\n")
    assert stored(message).OutputIncomplete is None
    engine.create.assert_called_once()
