"""A target's life with an engine that is a spec: what it is asked, in which order, what is kept."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients import logs, secrets
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.config import settings
from chalicelib.domain.states import MEANINGS, Reason, Status
from chalicelib.store.models import Execution, Result
from worker import patience
from worker.engine.client import (
    AlreadyStarted,
    Engine,
    Frame,
    NotStarted,
    OutputCut,
    Refusal,
    UnknownExec,
    Unreachable,
)
from worker.engine.exits import Exits
from worker.engine.paths import EnginePaths
from worker.output.spool import LAST_BYTES, Spool, SpoolDirectory
from worker.target import ending
from worker.target import run as life
from worker.target.command import Command, Commands
from worker.target.run import Runner

pytestmark = pytest.mark.usefixtures("aws", "clock")
NOW = 1_800_000_000.0
SECRET = "s3cret value"
TARGET = {"Target": [{"ContainerId": "c1", "NodeId": "n1"}]}
OVER = {
    "ID": "e1",
    "Running": False,
    "ExitCode": 0,
    "Pid": 7,
    "ProcessConfig": {"entrypoint": "echo", "arguments": ["hi", SECRET]},
}


class WaitsForEver(BaseException):
    """Raised in the place of the thousandth look at something that does not change."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time stands; whoever sleeps is woken at once, but not for ever."""
    clock = SimpleNamespace(slept=0, seconds=0.0)

    def sleep(seconds: float) -> None:
        clock.slept += 1
        clock.seconds += seconds
        if clock.slept > 1000:
            raise WaitsForEver

    clock.time, clock.sleep = lambda: NOW, sleep
    clock.monotonic = lambda: time.monotonic() + clock.seconds  # real time passes too
    for module in (life, ending):
        monkeypatch.setattr(module, "time", clock)
    for patient in (patience.insist, patience.insist_on_log):
        monkeypatch.setattr(patient, "sleep", sleep)
    return clock


def printing(*frames: Frame) -> Callable[[str], Iterator[Frame]]:
    """What an engine does at a start: it gives the output, a generator that can be closed."""
    return lambda exec_id: (frame for frame in frames)


def container(id: str, **host: Any) -> dict[str, Any]:
    """What an engine says of an ordinary container."""
    return {"Id": id, "Config": {"User": ""}, "HostConfig": host, "Mounts": []}


@pytest.fixture
def engine() -> Any:
    fake = create_autospec(Engine, instance=True)
    fake.container.side_effect = lambda id: container(id)
    fake.read_file.return_value = b"u:x:1000:1000:::\n"
    fake.paths = EnginePaths()
    fake.is_alive.return_value = False
    fake.create.return_value = "e1"
    fake.start.side_effect = printing((1, b"hi\n"))
    fake.inspect.return_value = dict(OVER)
    return fake


@pytest.fixture
def exits() -> Any:
    fake = create_autospec(Exits, instance=True)
    fake.known.return_value = fake.told.return_value = None
    fake.since = "2027-01-15T08:00:00+00:00"
    return fake


@pytest.fixture
def message() -> Received:
    return accepted(NOW)


def accepted(when: float, **fields: Any) -> Received:
    """An execution that was stored then, and its message."""
    executor_id = f"{when:.6f}"
    Execution(
        "j1",
        executor_id,
        AppName="a",
        ServiceName="",
        Name="n",
        User="u",
        Env=["A=b"],
        Sealed=secrets.pack([secrets.seal("j1", SECRET)]),
        ExpiresAt=int(when) + 1000,
        **{
            "Cmd": "echo hi",
            "Privileged": True,
            "MayRunAsRoot": True,
            "UnknownNodes": [],
            **TARGET,
            **fields,
        },
    ).save()
    return Received(TargetMessage("j1", executor_id, "c1"), "m1", "receipt", first=True)


def again(message: Received) -> Received:
    return Received(message.target, "m1", "receipt 2", first=False)


def stored(message: Received) -> Result:
    found = store.results.get_result("j1", message.target.executor_id, "c1")
    assert found
    return found


def claimed(message: Received, status: Status = Status.CREATED) -> None:
    """Another worker claimed it with the exec e1."""
    key = store.results.result_key("j1", message.target.executor_id)
    Result(key, "c1", NodeId="n1", Status=status, ID="e1", ExpiresAt=1).save()


def claimed_in_the_midst_of_the_create(engine: Any, message: Received) -> None:
    """Another worker claims it while the engine makes our exec, e2."""

    def create(*arguments: Any) -> str:
        claimed(message, Status.RUNNING)
        return "e2"

    engine.create.side_effect = create


@pytest.fixture
def runner(engine: Any, exits: Any, tmp_path: Path) -> Runner:
    spools = SpoolDirectory(tmp_path, 10**6, 10**6)
    return Runner(engine, exits, "n1", Commands(), spools, True)


@pytest.mark.parametrize("line", ["echo #'\nhi'", "# nothing but a comment", "'' a"])
def test_what_does_not_split_any_more_fails_and_says_so(
    runner: Runner, engine: Any, line: str
) -> None:
    """Above all, a secret argument must not become the program."""
    message = accepted(NOW, Cmd=line)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.COMMAND_INVALID)
    assert "does not split" in result.E
    engine.create.assert_not_called()


def test_a_forbidden_target_is_neither_taken_nor_created(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.container.side_effect = lambda id: container("long", CapAdd=["SYS_ADMIN"])
    mortal = accepted(NOW + 1, MayRunAsRoot=None, Privileged=False)
    runner.run(mortal)
    result = stored(mortal)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.FORBIDDEN)
    engine.create.assert_not_called()
    assert store.results.get_results("j1", mortal.target.executor_id).keys() == {"c1"}
    runner.run(message)
    assert stored(message).Status == Status.FINISHED


def test_without_the_right_to_root_the_exec_has_the_number_that_was_checked(
    runner: Runner, engine: Any
) -> None:
    runner.run(accepted(NOW, MayRunAsRoot=None, Privileged=False))
    engine.create.assert_called_once_with("c1", ["echo", "hi", SECRET], ["A=b"], "1000", False)


@pytest.mark.parametrize(
    "fields",
    [
        {"Target": [{"ContainerId": "c2", "NodeId": "n1"}]},
        {"Target": [{"ContainerId": "c1", "NodeId": "n2"}]},
        {"UnknownNodes": ["n1"]},
    ],
    ids=["another container", "another node", "a node that was unknown"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_message_of_no_target_is_dropped(
    runner: Runner, engine: Any, fields: dict[str, Any], first: bool
) -> None:
    forged = accepted(NOW, **fields)
    runner.run(forged if first else again(forged))
    engine.container.assert_not_called()
    engine.create.assert_not_called()
    assert store.results.get_results("j1", forged.target.executor_id) == {}


def spelled(*ids: str) -> list[Received]:
    """An execution for these containers, and its messages."""
    (message,) = [accepted(NOW, Target=[{"ContainerId": id, "NodeId": "n1"} for id in ids])]
    ours = message.target
    return [
        Received(TargetMessage("j1", ours.executor_id, id), id, "receipt", first=True) for id in ids
    ]


@pytest.mark.parametrize("ids", [*itertools.permutations(["c1", "name", "long"])], ids=str)
def test_one_container_runs_once_however_it_is_spelled(
    runner: Runner, engine: Any, ids: tuple[str, ...]
) -> None:
    engine.container.side_effect = lambda id: container("long")
    for message in spelled(*ids):
        runner.run(message)
    engine.start.assert_called_once()
    results = store.results.get_results("j1", message.target.executor_id)
    assert results[ids[0]].Status == Status.FINISHED
    for second in ids[1:]:
        result = results[second]
        assert (result.Status, result.Reason) == (
            Status.CREATE_FAILED,
            Reason.CONTAINER_REPEATED,
        )
        assert f"the target {ids[0]} already" in result.E


def test_who_died_between_taking_the_container_and_the_claim_goes_on(
    runner: Runner, engine: Any
) -> None:
    engine.container.side_effect = lambda id: container("long")
    short, long = spelled("c1", "long")
    engine.create.side_effect = Unreachable
    with pytest.raises(Unreachable):
        runner.run(short)
    engine.create.side_effect = None
    runner.run(long)
    engine.start.assert_not_called()
    runner.run(again(short))
    results = store.results.get_results("j1", short.target.executor_id)
    assert results["c1"].Status == Status.FINISHED
    assert results["long"].Reason == Reason.CONTAINER_REPEATED


def test_a_target_runs_and_its_secrets_are_masked(
    runner: Runner, engine: Any, message: Received
) -> None:
    runner.run(message)
    engine.create.assert_called_once_with("c1", ["echo", "hi", SECRET], ["A=b"], "u", True)
    result = stored(message)
    assert (result.Status, result.Output, result.OutputSize) == (Status.FINISHED, b"hi\n", 3)
    assert result.Inspect["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]
    assert result.OutputIncomplete is None


def test_the_claim_is_stored_before_the_exec_starts(
    runner: Runner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        assert (stored(message).Status, stored(message).ID) == (Status.CREATED, exec_id)
        yield 1, b"started"

    engine.start.side_effect = start
    runner.run(message)
    assert stored(message).Output == b"started"


def test_who_loses_the_claim_starts_nothing_of_its_own(
    runner: Runner, engine: Any, message: Received
) -> None:
    claimed(message)
    engine.create.return_value = "e2"
    runner.run(message)
    engine.start.assert_not_called()
    assert (stored(message).ID, stored(message).Status) == ("e1", Status.FINISHED)


def test_an_expired_target_is_not_even_created(runner: Runner, engine: Any) -> None:
    late = accepted(NOW - 601)
    runner.run(late)
    engine.create.assert_not_called()
    assert (stored(late).Status, stored(late).Reason) == (Status.CREATE_FAILED, Reason.EXPIRED)


def test_a_refusal_is_kept_without_secrets(runner: Runner, engine: Any, message: Received) -> None:
    engine.create.side_effect = Refusal(Reason.CONTAINER_PAUSED, f"no: {SECRET} " + "x" * 9000)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.CONTAINER_PAUSED)
    assert result.E.startswith("no: ***")
    assert len(result.E) == 2000
    engine.start.assert_not_called()


def test_a_message_of_a_finished_target_does_nothing(
    runner: Runner, engine: Any, message: Received
) -> None:
    runner.run(message)
    engine.reset_mock()
    runner.run(again(message))
    engine.create.assert_not_called()
    engine.start.assert_not_called()


def test_a_message_that_comes_again_before_any_claim_runs(
    runner: Runner, engine: Any, message: Received
) -> None:
    runner.run(again(message))
    assert stored(message).Status == Status.FINISHED


def test_an_exec_that_was_never_started_is_started(
    runner: Runner, engine: Any, message: Received
) -> None:
    claimed(message)
    engine.inspect.side_effect = [{**OVER, "ExitCode": None}, OVER]
    runner.run(again(message))
    engine.start.assert_called_once_with("e1")
    assert (stored(message).Status, stored(message).Output) == (Status.FINISHED, b"hi\n")


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_an_exec_that_runs_is_awaited_and_not_started(
    runner: Runner, engine: Any, message: Received, status: Status
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
        # The engine had given it up: that is no exit code of the command's.
        (127, Reason.LOST, "127"),
    ],
)
def test_126_of_a_command_without_a_reader_is_not_believed(
    runner: Runner,
    engine: Any,
    exits: Any,
    message: Received,
    told: int | None,
    reason: Reason | None,
    says: str | None,
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    exits.told.return_value = told
    runner.run(again(message))
    result = stored(message)
    assert result.Reason == reason
    assert says in result.E if says else result.Inspect["ExitCode"] == told


@pytest.mark.parametrize("code", [126, 127])
@pytest.mark.parametrize("adopted", [False, True])
def test_the_code_of_a_command_that_could_not_start_is_its_own(
    runner: Runner, engine: Any, exits: Any, message: Received, code: int, adopted: bool
) -> None:
    """It never had a process; so it had no output whose reader could have gone."""
    if adopted:
        claimed(message)
    engine.inspect.return_value = {**OVER, "ExitCode": code, "Pid": 0}
    runner.run(again(message) if adopted else message)
    assert stored(message).Inspect["ExitCode"] == code
    exits.told.assert_not_called()


def test_127_of_a_process_is_believed(runner: Runner, engine: Any, message: Received) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 127}
    runner.run(again(message))
    assert stored(message).Inspect["ExitCode"] == 127


def test_126_of_a_command_that_runs_is_not_its_end(
    runner: Runner, engine: Any, exits: Any, message: Received
) -> None:
    """The engine says so of a command that printed to both of its streams without a reader."""
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    engine.is_alive.side_effect = [True, True, False]
    exits.told.return_value = 7
    runner.run(again(message))
    assert stored(message).Inspect["ExitCode"] == 7
    engine.is_alive.assert_called_with("c1", 7)


@pytest.mark.parametrize(
    ("told", "code", "cut"), [(None, 126, None), (126, 126, None), (7, 7, True)]
)
def test_126_of_a_command_with_a_reader_is_believed_unless_the_event_says_otherwise(
    runner: Runner,
    engine: Any,
    exits: Any,
    message: Received,
    told: int | None,
    code: int,
    cut: bool | None,
) -> None:
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    exits.known.return_value = exits.told.return_value = told
    runner.run(message)
    result = stored(message)
    assert (result.Inspect["ExitCode"], result.OutputIncomplete) == (code, cut)


def test_a_first_start_costs_three_calls_and_an_adopters_an_inspect_in_place_of_the_create(
    runner: Runner, engine: Any, message: Received
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
    about = ("create", "start", "inspect", "is_alive", "ends")
    return [name for name, _, _ in engine.method_calls if name in about]


def test_what_ended_while_the_engine_was_away_may_have_been_cut(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.inspect.side_effect = [Unreachable, OVER]
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.OutputIncomplete) == (Status.FINISHED, True)


def test_an_engine_that_is_gone_for_good_ends_its_targets(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_ENGINE_GONE", 60)
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = [{**OVER, "Running": True}, *[Unreachable] * 100]
    runner.run(again(message))
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert engine.inspect.call_count < 50


def test_who_loses_the_claim_by_the_only_message_adopts(
    runner: Runner, engine: Any, message: Received
) -> None:
    """Another worker took the target up by the same message, which it could not hold."""
    claimed_in_the_midst_of_the_create(engine, message)
    engine.inspect.return_value = {**OVER, "ExitCode": 5}
    runner.run(again(message))
    result = stored(message)
    assert (result.ID, result.Status, result.Inspect["ExitCode"]) == ("e1", Status.FINISHED, 5)
    engine.start.assert_not_called()


def test_an_output_that_cannot_be_kept_is_hung_up(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that goes on printing would wait for its reader for ever."""
    hung_up = threading.Event()

    def start(exec_id: str) -> Iterator[Frame]:
        try:
            while True:
                yield 1, b"more"
        finally:
            hung_up.set()

    def full(spool: Spool, chunk: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Spool, "write", full)
    engine.start.side_effect = start
    ended = iter([{**OVER, "Running": True}] * 3)
    engine.inspect.side_effect = lambda exec_id: OVER if hung_up.is_set() else next(ended)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.OutputIncomplete) == (Status.FINISHED, True)


@pytest.mark.parametrize(("looks", "patience"), [(0, 0), (8, life._DOUBTFUL_OWNER_SECONDS)])
def test_an_end_that_comes_while_it_is_watched_is_left_to_an_owner_that_may_live(
    runner: Runner, engine: Any, message: Received, clock: Any, looks: int, patience: float
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = [*[{**OVER, "Running": True}] * looks, OVER]
    runner.run(again(message))
    assert stored(message).Status == Status.FINISHED
    pauses = [min(life._LOOK_FIRST * 2**look, life._LOOK_LAST) for look in range(looks)]
    assert patience <= clock.seconds - sum(pauses) <= patience + ending._LOOK


@pytest.mark.parametrize(("code", "told"), [(None, "how it ended is lost"), (7, "ended with 7")])
def test_an_exec_that_the_engine_forgot_is_lost(
    runner: Runner, engine: Any, exits: Any, message: Received, code: int | None, told: str
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = UnknownExec
    exits.known.return_value = code
    runner.run(again(message))
    assert (stored(message).Status, stored(message).Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert told in stored(message).E
    engine.start.assert_not_called()


def test_who_starts_second_waits_for_the_first(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = AlreadyStarted
    runner.run(message)
    assert stored(message).Status == Status.FINISHED
    assert stored(message).OutputIncomplete is True


def test_a_target_at_its_deadline_still_runs(runner: Runner, engine: Any) -> None:
    just = accepted(NOW - settings.delivery_deadline)
    runner.run(just)
    assert stored(just).Status == Status.FINISHED


def test_the_log_is_whole_before_the_end_is_stored(
    runner: Runner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = logs.log_key("j1", message.target.executor_id, "c1")
    seen = []
    move = store.results.move_result

    def watched(result: Result) -> bool:
        seen.append((result.Status, logs.stored(key)))
        return move(result)

    monkeypatch.setattr(store.results, "move_result", watched)
    runner.run(message)
    assert seen == [(Status.FINISHED, 3)]


def test_a_command_that_takes_its_time_shows_as_running(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    move = store.results.move_result
    moves = []

    def watched(result: Result) -> bool:
        moves.append((result.Status, result.ID))
        moved = move(result)
        told.set()
        return moved

    def start(exec_id: str) -> Iterator[Frame]:
        assert told.wait(30)
        yield 1, b"late"

    monkeypatch.setattr(life, "_RUNNING_AFTER", 0)
    monkeypatch.setattr(store.results, "move_result", watched)
    engine.start.side_effect = start
    runner.run(message)
    assert moves == [(Status.RUNNING, "e1"), (Status.FINISHED, "e1")]
    assert stored(message).Output == b"late"


def test_an_output_that_is_held_open_for_a_forgotten_exec_is_not_waited_for(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, freed = threading.Event(), threading.Event()

    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"before"
        taken.set()
        freed.wait(30)

    def inspect(exec_id: str) -> Any:
        assert taken.wait(30)
        return answer(next(looks, UnknownExec()))

    looks = iter([Unreachable("away"), Refusal(Reason.ENGINE_ERROR, "no"), dict(OVER)])
    for name in ("_RUNNING_AFTER", "_FLUSH_SECONDS", "_FLUSH_PAUSE", "_LOOK_KNOWN"):
        monkeypatch.setattr(life, name, 0)
    engine.start.side_effect = start
    engine.inspect.side_effect = inspect
    try:
        runner.run(message)
    finally:
        freed.set()
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    assert (result.Output, result.OutputIncomplete) == (b"before", True)


def answer(what: Any) -> Any:
    if isinstance(what, Exception):
        raise what
    return what


def test_a_claim_that_lost_after_the_create_starts_nothing(
    runner: Runner, engine: Any, message: Received
) -> None:
    claimed_in_the_midst_of_the_create(engine, message)
    runner.run(message)
    engine.start.assert_not_called()
    assert stored(message).ID == "e1"


def test_a_refused_start_is_a_failure_without_secrets(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Refusal(Reason.CONTAINER_GONE, f"exec failed: {SECRET}")
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.CONTAINER_GONE)
    assert result.E == "exec failed: ***"
    assert (result.EndTime, result.OutputIncomplete) == (NOW, None)


def test_an_output_that_broke_off_is_incomplete_and_the_exit_code_known(
    runner: Runner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"half"
        raise OutputCut("gone")

    engine.start.side_effect = start
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Output, result.OutputIncomplete) == ("FINISHED", b"half", True)


@pytest.mark.parametrize("failing", ["move_result", "flush"])
def test_the_end_is_stored_through_an_outage(
    runner: Runner, message: Received, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    owner, name = (store.results, failing) if failing == "move_result" else (Spool, failing)
    real = getattr(owner, name)
    failures = iter([True, True, False])

    def stumbling(*arguments: Any) -> Any:
        if next(failures, False):
            raise ConnectionError
        return real(*arguments)

    monkeypatch.setattr(owner, name, stumbling)
    runner.run(message)
    assert (stored(message).Status, stored(message).Output) == (Status.FINISHED, b"hi\n")


@pytest.mark.parametrize("redact", [True, False])
def test_secrets_are_taken_out_of_each_stream_of_the_output(
    engine: Any, exits: Any, message: Received, tmp_path: Path, redact: bool
) -> None:
    half = len(SECRET) // 2
    frames = [(1, b"<" + SECRET[:half].encode()), (2, b"!"), (1, SECRET[half:].encode() + b">s3")]
    engine.start.side_effect = printing(*frames)
    spools = SpoolDirectory(tmp_path, 10**6, 10**6)
    Runner(engine, exits, "n1", Commands(), spools, redact).run(message)
    raw = f"<{SECRET[:half]}!{SECRET[half:]}>s3".encode()
    assert stored(message).Output == (b"<!***>s3" if redact else raw)


def test_what_a_redactor_holds_back_is_kept_when_the_output_breaks_off(
    runner: Runner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"half of it: s3cr"
        raise OutputCut("gone")

    engine.start.side_effect = start
    runner.run(message)
    assert stored(message).Output == b"half of it: s3cr"


def test_an_end_gives_the_disk_space_back(
    runner: Runner, message: Received, tmp_path: Path
) -> None:
    runner.run(message)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}


def test_a_log_that_s3_does_not_take_for_long_does_not_cost_the_exit_code(
    runner: Runner, message: Received, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    def refuse(spool: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(Spool, "flush", refuse)
    monkeypatch.setattr("tenacity.time", clock)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 0)
    assert (result.OutputIncomplete, result.OutputSize, result.Output) == (True, 0, b"hi\n")
    assert patience.LOG_SECONDS <= clock.seconds < 2 * patience.LOG_SECONDS


def test_how_it_ended_is_asked_before_the_log_is_completed(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    flush = Spool.flush

    def watched(spool: Any) -> None:
        steps.append("flush")
        flush(spool)

    monkeypatch.setattr(Spool, "flush", watched)
    engine.inspect.side_effect = lambda exec_id: steps.append("inspect") or dict(OVER)
    runner.run(message)
    assert steps == ["inspect", "flush"]


def test_an_exec_that_runs_on_after_its_output_ended_was_cut_off(
    runner: Runner, engine: Any, exits: Any, message: Received
) -> None:
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [*[running] * 9, {**OVER, "ExitCode": 126}]
    exits.told.return_value = 4
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 4)
    assert (result.OutputIncomplete, result.Output) == (True, b"hi\n")


def test_an_exec_whose_end_shows_a_moment_after_its_outputs_is_whole(
    runner: Runner, engine: Any, message: Received
) -> None:
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 126}]
    runner.run(message)
    result = stored(message)
    assert (result.Inspect["ExitCode"], result.OutputIncomplete) == (126, None)


@pytest.mark.parametrize("late", [False, True])
def test_a_claimed_exec_is_not_started_long_after_the_deadline(
    runner: Runner, engine: Any, late: bool
) -> None:
    old = accepted(NOW - settings.delivery_deadline - life._START_GRACE - late)
    claimed(old)
    never_started = {**OVER, "ExitCode": None}
    engine.inspect.side_effect = [never_started, OVER]
    runner.run(again(old))
    assert engine.start.called is not late
    assert stored(old).Reason == (Reason.EXPIRED if late else None)
    assert stored(old).Status == (Status.RUNNING_FAILED if late else Status.FINISHED)


def test_a_start_that_failed_in_the_middle_and_runs_is_brought_to_its_end(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Refusal(Reason.ENGINE_ERROR, "500")
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 3}]
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 3)
    assert result.OutputIncomplete is True


def test_a_living_owner_stores_the_end_itself(
    runner: Runner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """Who comes by a second message waits for it, since the owner has all of the output."""
    claimed(message, Status.RUNNING)
    get = store.results.get_result
    asked = []

    def ends_meanwhile(*key: str) -> Result | None:
        asked.append(clock.seconds)
        if len(asked) == 4:
            owned = get(*key)
            assert owned
            owned.Status, owned.Output = Status.FINISHED, b"whole"
            store.results.move_result(owned)
        return get(*key)

    monkeypatch.setattr(store.results, "get_result", ends_meanwhile)
    runner.run(message)
    assert (stored(message).Output, stored(message).OutputIncomplete) == (b"whole", None)


def test_an_owner_that_does_not_store_the_end_in_time_is_taken_for_dead(
    runner: Runner, message: Received, clock: Any
) -> None:
    claimed(message, Status.RUNNING)
    runner.run(message)
    assert (stored(message).Status, stored(message).OutputIncomplete) == (Status.FINISHED, True)
    assert clock.seconds >= life._OWNER_SECONDS


def test_an_adopted_end_outlasts_an_outage_of_the_store_of_secrets(
    runner: Runner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(message, Status.RUNNING)
    unseal, failures = secrets.unseal, iter([True, True])

    def stumbling(job_id: str, sealed: secrets.Sealed) -> str:
        if next(failures, False):
            raise ConnectionError
        return unseal(job_id, sealed)

    monkeypatch.setattr(secrets, "unseal", stumbling)
    runner.run(again(message))
    assert stored(message).Inspect["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]


def test_an_unreachable_engine_leaves_the_target_for_later(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.create.side_effect = Unreachable
    with pytest.raises(Unreachable):
        runner.run(message)
    assert store.results.get_result("j1", message.target.executor_id, "c1") is None


def test_an_engine_that_hides_for_a_while_is_waited_for(
    runner: Runner, engine: Any, message: Received, clock: Any
) -> None:
    paused = Refusal(Reason.CONTAINER_PAUSED, "paused")
    engine.inspect.side_effect = [Unreachable("away"), paused, OVER]
    runner.run(message)
    assert stored(message).Status == Status.FINISHED
    assert clock.slept == 2


@pytest.mark.parametrize("reason", Reason)
def test_a_command_is_over_if_its_container_is_away(
    runner: Runner, engine: Any, message: Received, clock: Any, reason: Reason
) -> None:
    engine.inspect.side_effect = [Refusal(reason, "no"), OVER]
    runner.run(message)
    is_away = MEANINGS[reason].container_is_away
    assert stored(message).Status == (Status.RUNNING_FAILED if is_away else Status.FINISHED)


def test_a_container_removed_under_its_command_is_gone(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.inspect.side_effect = Refusal(Reason.CONTAINER_NOT_RUNNING, "not running")
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.CONTAINER_GONE)
    assert result.Output == b"hi\n"


def test_an_adopted_exec_that_is_over_has_its_code_and_the_stored_output(
    runner: Runner, engine: Any, message: Received
) -> None:
    claimed(message, Status.RUNNING)
    logs.GrowingObject(logs.log_key("j1", message.target.executor_id, "c1")).write(b"so far")
    engine.inspect.return_value = {**OVER, "ExitCode": 3}
    runner.run(again(message))
    engine.start.assert_not_called()
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"], result.Output) == ("FINISHED", 3, b"so far")
    assert (result.OutputSize, result.OutputIncomplete) == (6, True)
    assert result.Inspect["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]


@pytest.mark.parametrize("end", ["FINISHED", "CREATE_FAILED", "RUNNING_FAILED"])
def test_a_message_of_a_target_that_is_over_asks_the_engine_nothing(
    runner: Runner, engine: Any, message: Received, end: str
) -> None:
    claimed(message, Status(end))
    runner.run(again(message))
    assert engine.mock_calls == []
    assert stored(message).Status == end


def test_a_message_of_no_execution_is_dropped(runner: Runner, engine: Any) -> None:
    target = TargetMessage("j1", "1.000000", "c1")
    runner.run(Received(target, "m1", "r", first=True))
    assert engine.mock_calls == []
    assert store.results.get_result("j1", "1.000000", "c1") is None


def unreadable(message: Received) -> None:
    """Its secret was sealed for another job."""
    found = store.executions.get_execution("j1", message.target.executor_id)
    found.Sealed = secrets.pack([secrets.seal("j2", SECRET)])
    found.save()


def test_secrets_that_do_not_open_fail_the_target_before_the_engine(
    runner: Runner, engine: Any, message: Received
) -> None:
    unreadable(message)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.CREATE_FAILED, Reason.SECRETS_UNREADABLE)
    assert engine.mock_calls == []


@pytest.mark.parametrize("code", [0, None])
def test_an_adopted_exec_whose_secrets_do_not_open_shows_nothing(
    runner: Runner, engine: Any, message: Received, code: int | None
) -> None:
    unreadable(message)
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": code}
    runner.run(again(message))
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.SECRETS_UNREADABLE)
    assert result.Inspect is None


def test_of_many_targets_each_keeps_a_shorter_end(message: Received) -> None:
    found = store.executions.get_execution("j1", message.target.executor_id)
    found.Target = [{"ContainerId": f"c{number}", "NodeId": "n1"} for number in range(1000)]
    found.save()
    commands = Commands()
    with commands.held(message.target):
        assert commands.load(message.target).tail == 4 * 1024**2 // 1000


def with_secrets(*secrets_: str) -> Command:
    return Command(
        line="echo",
        secrets=list(secrets_),
        env=[],
        user="",
        privileged=False,
        may_run_as_root=False,
        app_name="a",
        service_name="",
        own_containers_only=False,
        created=NOW,
        expires=0,
        tail=1,
    )


@pytest.mark.parametrize("secrets_", [(), ("",), ("a", "", "b b")])
def test_only_the_secrets_among_the_arguments_are_masked(secrets_: tuple[str, ...]) -> None:
    given = {"ProcessConfig": {"entrypoint": "echo", "arguments": ["a", *secrets_]}, "Pid": 1}
    masked = with_secrets(*secrets_).mask(given)
    assert masked["ProcessConfig"]["arguments"] == ["a", *("*" * len(text) for text in secrets_)]
    assert (masked["Pid"], masked["ProcessConfig"]["entrypoint"]) == (1, "echo")
    assert given["ProcessConfig"]["arguments"] == ["a", *secrets_]  # type: ignore[index]


def test_an_empty_secret_scrubs_nothing() -> None:
    assert with_secrets("").scrub("all right") == "all right"


def test_a_secret_that_holds_another_is_scrubbed_whole() -> None:
    assert "word" not in with_secrets("pass", "password").scrub("no password here")


def test_a_start_that_never_reached_the_engine_is_made_at_the_next_delivery(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Unreachable("connection refused")
    engine.inspect.return_value = {**OVER, "ExitCode": None}
    with pytest.raises(NotStarted):
        runner.run(message)
    engine.start.side_effect = printing((1, b"hi\n"))
    engine.inspect.side_effect = [{**OVER, "ExitCode": None}, OVER]
    runner.run(again(message))
    assert (stored(message).Status, stored(message).Output) == (Status.FINISHED, b"hi\n")
    assert stored(message).OutputIncomplete is None
    engine.create.assert_called_once()


def test_a_log_that_becomes_too_long_says_what_it_lacks(runner: Runner, engine: Any) -> None:
    message = accepted(NOW, LogBytes=10)
    engine.start.side_effect = printing((1, b"0123456789-----" + b"x" * LAST_BYTES))
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.OutputIncomplete) == (Status.FINISHED, True)
    assert result.OutputDropped == {"Bytes": 5, "After": 10}
    assert result.OutputSize == 10 + LAST_BYTES
    assert logs.stored_end(logs.log_key(*message.target.ids), LAST_BYTES + 20) == (
        b"0123456789" + b"x" * LAST_BYTES
    )


def test_a_log_that_s3_refuses_does_not_say_where_it_lacks_something(
    runner: Runner, engine: Any, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    def refuse(spool: Any) -> None:
        raise ConnectionError

    message = accepted(NOW, LogBytes=10)
    engine.start.side_effect = printing((1, b"0123456789-----" + b"x" * LAST_BYTES))
    monkeypatch.setattr(Spool, "flush", refuse)
    monkeypatch.setattr("tenacity.time", clock)
    runner.run(message)
    assert (stored(message).OutputIncomplete, stored(message).OutputDropped) == (True, None)
