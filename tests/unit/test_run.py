"""A target's life with an engine that is a spec: what it is asked, in which order, what is kept."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import secrets, store
from chalicelib.models import Execution, Result
from chalicelib.queues import Received, TargetMessage
from chalicelib.states import Reason, Status
from worker.engine import AlreadyStarted, Engine, Refusal, UnknownExec
from worker.run import Runner

pytestmark = pytest.mark.usefixtures("aws")
SECRET = "s3cret value"
OVER = {
    "ID": "e1",
    "Running": False,
    "ExitCode": 0,
    "ProcessConfig": {"entrypoint": "echo", "arguments": ["hi", SECRET]},
}


@pytest.fixture
def engine() -> Any:
    fake = create_autospec(Engine, instance=True)
    fake.create.return_value = "e1"
    fake.start.side_effect = lambda exec_id: iter([b"hi\n"])
    fake.inspect.return_value = dict(OVER)
    return fake


@pytest.fixture
def message() -> Received:
    return accepted(time.time())


def accepted(when: float) -> Received:
    """An execution that was stored then, and its message."""
    executor_id = f"{when:.6f}"
    Execution(
        "j1",
        executor_id,
        AppName="a",
        ServiceName="",
        Name="n",
        Cmd="echo hi",
        Privileged=True,
        User="u",
        Env=["A=b"],
        Sealed=secrets.pack([secrets.seal("j1", SECRET)]),
        Target=[{"ContainerId": "c1", "NodeId": "n1"}],
        UnknownNodes=[],
        ExpiresAt=int(when) + 1000,
    ).save()
    return Received(TargetMessage("j1", executor_id, "c1"), "receipt", first=True)


def again(message: Received) -> Received:
    return Received(message.target, "receipt 2", first=False)


def stored(message: Received) -> Result:
    found = store.get_result("j1", message.target.executor_id, "c1")
    assert found
    return found


def claimed(message: Received, status: Status = Status.CREATED) -> None:
    """Another worker claimed it with the exec e1."""
    key = store.result_key("j1", message.target.executor_id)
    Result(key, "c1", NodeId="n1", Status=status, ID="e1", ExpiresAt=1).save()


@pytest.fixture
def runner(engine: Any, tmp_path: Path) -> Runner:
    return Runner(engine, "n1", tmp_path, 10**6)


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
    def start(exec_id: str) -> Iterator[bytes]:
        assert (stored(message).Status, stored(message).ID) == (Status.CREATED, exec_id)
        yield b"started"

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
    late = accepted(time.time() - 601)
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
    runner: Runner, engine: Any, message: Received, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.run.time.sleep", lambda seconds: None)
    claimed(message, status)
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 5}]
    runner.run(again(message))
    engine.start.assert_not_called()
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 5)
    assert result.OutputIncomplete is True


@pytest.mark.parametrize(
    ("recorded", "status"), [(7, Status.FINISHED), (None, Status.RUNNING_FAILED)]
)
def test_126_of_a_command_without_a_reader_is_not_believed(
    runner: Runner, engine: Any, message: Received, recorded: int | None, status: Status
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    engine.recorded_exit.return_value = recorded
    runner.run(again(message))
    result = stored(message)
    assert result.Status == status
    assert result.Inspect["ExitCode"] == 7 if recorded else result.Reason == Reason.LOST


def test_an_exec_that_the_engine_forgot_is_lost(
    runner: Runner, engine: Any, message: Received
) -> None:
    claimed(message, Status.RUNNING)
    engine.inspect.side_effect = UnknownExec
    runner.run(again(message))
    assert (stored(message).Status, stored(message).Reason) == (Status.RUNNING_FAILED, Reason.LOST)
    engine.start.assert_not_called()


def test_who_starts_second_waits_for_the_first(
    runner: Runner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = AlreadyStarted
    runner.run(message)
    assert stored(message).Status == Status.FINISHED
    assert stored(message).OutputIncomplete is True
