"""How a target's end is found and stored: exit codes, output, and the order of the steps."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients.queues import Received
from chalicelib.domain.ends import End
from chalicelib.domain.segments import log_name
from chalicelib.domain.states import MEANINGS, Reason, Status
from chalicelib.store.models import Result
from tests.support.builders import build_result, build_targets
from tests.support.clock import NOW, Clock
from tests.support.logged import logged
from tests.support.waiting import wait_until
from tests.unit.target.life import (
    OVER,
    SECRET,
    HeldRunner,
    accepted,
    again,
    claimed,
    inspected,
    printing,
    stored,
)
from worker import patience
from worker.engine.errors import OutputCut, Refusal, UnknownExec, Unreachable
from worker.engine.stream import Frame
from worker.output.growth import GrowingLog
from worker.output.spool import LAST_BYTES, Spool
from worker.target import attachment, watch
from worker.target.attachment import Attachment
from worker.target.outcome import StoredEnd
from worker.target.run import NotOver

pytestmark = pytest.mark.usefixtures("aws", "clock")


# More than a result holds.
LONG = b"0123456789" * 1000


def logged_of(message: Received) -> bytes:
    return logged(log_name(*message.target.ids))


def upload(runner: HeldRunner, message: Received) -> bytes:
    """What came so far is uploaded: somebody watches. Returns what is in the log then."""
    runner.uploader.watch(message.target.job_id, message.target.executor_id, NOW, 30)
    runner.uploader.turn()
    return wait_until(lambda: logged_of(message))


def test_a_target_runs_and_its_secrets_are_masked(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    runner.run(message)
    engine.create.assert_called_once_with("c1", ["echo", "hi", SECRET], ["A=b"], "u", True)
    result = stored(message)
    assert (result.Status, result.Output, result.OutputSize) == (Status.FINISHED, b"hi\n", 3)
    assert inspected(message)["ProcessConfig"]["arguments"] == ["hi", "*" * len(SECRET)]
    assert result.OutputIncomplete is None


@pytest.mark.parametrize("code", [126, 127])
@pytest.mark.parametrize("adopted", [False, True])
def test_the_code_of_a_command_that_could_not_start_is_its_own(
    runner: HeldRunner, engine: Any, exit_codes: Any, message: Received, code: int, adopted: bool
) -> None:
    """It never had a process; so it had no output whose reader could have gone."""
    if adopted:
        claimed(message)
    engine.inspect.return_value = {**OVER, "ExitCode": code, "Pid": 0}
    runner.run(again(message) if adopted else message)
    assert stored(message).Inspect["ExitCode"] == code
    exit_codes.wait_for.assert_not_called()


@pytest.mark.parametrize(
    ("told", "code", "cut"), [(None, 126, None), (126, 126, None), (7, 7, True)]
)
def test_126_with_a_reader_is_believed_unless_the_event_says_otherwise(
    runner: HeldRunner,
    engine: Any,
    exit_codes: Any,
    message: Received,
    told: int | None,
    code: int,
    cut: bool | None,
) -> None:
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    exit_codes.find.return_value = exit_codes.wait_for.return_value = told
    runner.run(message)
    result = stored(message)
    assert (result.Inspect["ExitCode"], result.OutputIncomplete) == (code, cut)


def test_an_end_while_the_engine_was_away_may_have_cut_the_output(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.inspect.side_effect = [Unreachable, OVER]
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.OutputIncomplete) == (Status.FINISHED, True)


def test_a_connection_whose_output_cannot_be_kept_is_closed(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
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


def test_a_short_output_is_in_the_result_only(runner: HeldRunner, message: Received) -> None:
    runner.run(message)
    result = stored(message)
    assert (result.OutputSize, result.Output, result.OutputIncomplete) == (3, b"hi\n", None)
    assert logged_of(message) == b""


def test_a_short_output_that_may_lack_some_is_in_the_log_too(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.inspect.side_effect = [Unreachable("away"), dict(OVER)]
    runner.run(message)
    assert stored(message).OutputIncomplete
    assert logged_of(message) == b"hi\n"


@pytest.mark.parametrize("binary", [b"\xff\x00", "é".encode()[:1]])
def test_a_short_output_that_is_not_text_is_in_the_log_too(
    runner: HeldRunner, engine: Any, message: Received, binary: bytes
) -> None:
    """A client that does not say what it accepts can have such bytes only from S3."""
    engine.start.side_effect = printing((1, binary))
    runner.run(message)
    result = stored(message)
    assert (result.OutputSize, result.Output, result.OutputIncomplete) == (
        len(binary),
        binary,
        None,
    )
    assert logged_of(message) == binary


@pytest.mark.parametrize(("size", "logged_bytes"), [(8000, 0), (8001, 8001)])
def test_an_output_is_in_the_log_as_soon_as_the_result_cannot_hold_it(
    runner: HeldRunner, engine: Any, message: Received, size: int, logged_bytes: int
) -> None:
    engine.start.side_effect = printing((1, b"x" * (size - 1)), (2, b"y"))
    runner.run(message)
    result = stored(message)
    assert (result.OutputSize, result.OutputIncomplete) == (size, None)
    assert store.outputs.get_end(result) == (b"x" * (size - 1) + b"y")[-8000:]
    assert len(logged_of(message)) == logged_bytes


def test_a_short_output_goes_to_the_log_if_another_stored_the_end(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one could not read it, and its result says so: readers look into the log."""

    def is_second(result: Result) -> bool:
        ends = {"Status": Status.RUNNING_FAILED, "EndTime": NOW + 5}
        build_result(executor_id=message.target.executor_id, **ends).save()
        return False

    second = create_autospec(store.results.move_result, side_effect=is_second)
    monkeypatch.setattr(store.results, "move_result", second)
    end = runner.run(message)
    assert logged_of(message) == b"hi\n"
    # What counts is the end that is stored, and not ours.
    assert end
    assert end.end == End(0, False, NOW + 5)


def test_a_target_without_a_stored_end_is_not_over(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = create_autospec(store.results.move_result, return_value=False)
    monkeypatch.setattr(store.results, "move_result", second)
    with pytest.raises(NotOver):
        runner.run(message)


@pytest.mark.parametrize(("code", "succeeded"), [(0, True), (3, False)])
def test_the_end_that_is_counted_is_the_stored_one(
    runner: HeldRunner, engine: Any, code: int, succeeded: bool
) -> None:
    message = accepted(NOW, targets=build_targets("c0", "c1", "c2"), ExpiresAt=int(NOW) + 1000)
    engine.inspect.return_value = {**OVER, "ExitCode": code}
    end = runner.run(message)
    assert end == StoredEnd(End(1, succeeded, stored(message).EndTime), 0, 3, int(NOW) + 1000)
    # A message that comes again finds it.
    assert runner.run(again(message)) == end


def test_a_long_output_is_in_the_log_before_the_end_is_stored(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.start.side_effect = printing((1, LONG))
    seen = []
    move = store.results.move_result

    def watched(result: Result) -> bool:
        seen.append((result.Status, len(logged_of(message))))
        return move(result)

    monkeypatch.setattr(store.results, "move_result", watched)
    runner.run(message)
    assert seen == [(Status.FINISHED, len(LONG))]


def test_a_command_that_takes_its_time_shows_as_running(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
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

    monkeypatch.setattr(attachment, "_RUNNING_AFTER_SECONDS", 0)
    monkeypatch.setattr(store.results, "move_result", watched)
    engine.start.side_effect = start
    runner.run(message)
    assert moves == [(Status.RUNNING, "e1"), (Status.FINISHED, "e1")]
    assert stored(message).Output == b"late"


def test_running_is_said_again_if_it_could_not_be_stored(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()
    move = store.results.move_result
    moves = []

    def stumbling(result: Result) -> bool:
        moves.append(result.Status)
        if len(moves) == 1:
            raise ConnectionError
        moved = move(result)
        said.set()
        return moved

    def start(exec_id: str) -> Iterator[Frame]:
        assert said.wait(30)
        yield 1, b"late"

    for name in ("_RUNNING_AFTER_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(attachment, name, 0.01)
    monkeypatch.setattr(store.results, "move_result", stumbling)
    engine.start.side_effect = start
    runner.run(message)
    assert moves == [Status.RUNNING, Status.RUNNING, Status.FINISHED]


def test_the_log_is_brought_up_to_date_until_the_exec_is_over(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    """Its output has ended: what is not uploaded yet does not wait for its end."""
    running = {**OVER, "Running": True, "ExitCode": None}
    uploaded = []

    def inspect(exec_id: str) -> Any:
        if not uploaded:
            uploaded.append(upload(runner, message))
            return running
        return OVER

    engine.inspect.side_effect = inspect
    runner.run(message)
    assert uploaded == [b"hi\n"]
    assert stored(message).Output == b"hi\n"


def test_the_open_output_of_a_forgotten_exec_is_not_waited_for(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, freed = threading.Event(), threading.Event()

    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"before"
        upload(runner, message)
        taken.set()
        freed.wait(30)

    def inspect(exec_id: str) -> Any:
        assert taken.wait(30)
        return answer(next(looks, UnknownExec()))

    looks = iter([Unreachable("away"), Refusal(Reason.ENGINE_ERROR, "no"), dict(OVER)])
    for name in ("_RUNNING_AFTER_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(attachment, name, 0)
    monkeypatch.setattr(watch, "_KNOWN_SECONDS", 0)
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


def test_a_refused_start_is_a_failure_without_secrets(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Refusal(Reason.CONTAINER_GONE, f"exec failed: {SECRET}")
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.CONTAINER_GONE)
    assert result.E == "exec failed: ***"
    assert (result.EndTime, result.OutputIncomplete) == (NOW, None)


def test_an_output_that_broke_off_is_incomplete_but_has_an_exit_code(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"half"
        raise OutputCut("gone")

    engine.start.side_effect = start
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Output, result.OutputIncomplete) == ("FINISHED", b"half", True)


@pytest.mark.parametrize("failing", ["move_result", "finish"])
def test_the_end_is_stored_through_an_outage(
    runner: HeldRunner, message: Received, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    owner, name = (store.results, failing) if failing == "move_result" else (GrowingLog, failing)
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
def test_secrets_are_removed_from_each_stream_of_the_output(
    engine: Any, exit_codes: Any, message: Received, tmp_path: Path, redact: bool
) -> None:
    half = len(SECRET) // 2
    frames = [(1, b"<" + SECRET[:half].encode()), (2, b"!"), (1, SECRET[half:].encode() + b">s3")]
    engine.start.side_effect = printing(*frames)
    HeldRunner(engine, exit_codes, tmp_path, redact).run(message)
    raw = f"<{SECRET[:half]}!{SECRET[half:]}>s3".encode()
    assert stored(message).Output == (b"<!***>s3" if redact else raw)


def test_bytes_held_back_by_redaction_survive_a_broken_output(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"half of it: s3cr"
        raise OutputCut("gone")

    engine.start.side_effect = start
    runner.run(message)
    assert stored(message).Output == b"half of it: s3cr"


def test_the_end_gives_the_disk_space_back(
    runner: HeldRunner, message: Received, tmp_path: Path
) -> None:
    runner.run(message)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock"}


def test_a_result_says_when_its_command_began_and_ended(
    runner: HeldRunner, message: Received
) -> None:
    runner.run(message)
    assert (stored(message).StartTime, stored(message).EndTime) == (NOW, NOW)


def test_a_log_that_s3_keeps_refusing_does_not_cost_the_exit_code(
    runner: HeldRunner,
    engine: Any,
    message: Received,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    engine.start.side_effect = printing((1, LONG))

    def refuse(log: GrowingLog) -> None:
        raise ConnectionError

    monkeypatch.setattr(GrowingLog, "finish", refuse)
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 0)
    assert (result.OutputIncomplete, result.OutputSize) == (True, 0)
    assert store.outputs.get_end(result) == LONG[-8000:]
    assert patience.LOG_SECONDS <= sum(clock.sleeps) < 2 * patience.LOG_SECONDS


def test_the_engine_is_asked_for_the_end_before_the_log_is_completed(
    runner: HeldRunner, engine: Any, message: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.start.side_effect = printing((1, LONG))
    steps = []
    finish = GrowingLog.finish

    def watched(log: GrowingLog) -> None:
        steps.append("finish")
        finish(log)

    monkeypatch.setattr(GrowingLog, "finish", watched)
    engine.inspect.side_effect = lambda exec_id: steps.append("inspect") or dict(OVER)
    runner.run(message)
    assert steps == ["inspect", "finish"]


def test_an_exec_that_outlives_its_output_was_cut_off(
    runner: HeldRunner, engine: Any, exit_codes: Any, message: Received
) -> None:
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [*[running] * 9, {**OVER, "ExitCode": 126}]
    exit_codes.wait_for.return_value = 4
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 4)
    assert (result.OutputIncomplete, result.Output) == (True, b"hi\n")


def test_the_output_of_an_exec_that_outlives_it_is_incomplete(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [*[running] * 9, OVER]
    runner.run(message)
    result = stored(message)
    assert (result.Inspect["ExitCode"], result.OutputIncomplete) == (0, True)


def test_126_is_not_believed_if_the_process_was_seen_to_live_on(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    """It had lost its reader: the code that only the event had is lost with it."""
    engine.inspect.return_value = {**OVER, "ExitCode": 126}
    engine.is_alive.side_effect = [True, False]
    runner.run(message)
    result = stored(message)
    assert (result.Reason, result.OutputIncomplete) == (Reason.LOST, True)


def test_an_end_that_shows_a_moment_after_the_outputs_end_is_complete(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 126}]
    runner.run(message)
    result = stored(message)
    assert (result.Inspect["ExitCode"], result.OutputIncomplete) == (126, None)


def test_a_start_that_failed_halfway_but_runs_is_brought_to_its_end(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.start.side_effect = Refusal(Reason.ENGINE_ERROR, "500")
    running = {**OVER, "Running": True, "ExitCode": None}
    engine.inspect.side_effect = [running, running, {**OVER, "ExitCode": 3}]
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 3)
    assert result.OutputIncomplete is True


def test_a_long_output_whose_end_shows_a_moment_later_is_complete(
    runner: HeldRunner,
    engine: Any,
    message: Received,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = threading.Event()
    stay = Attachment.stay

    def staying(attachment: Attachment) -> bool:
        ended = stay(attachment)
        looked.set()
        return ended

    def start(exec_id: str) -> Iterator[Frame]:
        yield 1, b"hi"
        assert looked.wait(10)
        clock.sleep(60)

    monkeypatch.setattr(attachment, "_RUNNING_AFTER_SECONDS", 0)
    monkeypatch.setattr(attachment, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Attachment, "stay", staying)
    engine.start.side_effect = start
    engine.inspect.side_effect = [{**OVER, "Running": True}, OVER]
    runner.run(message)
    assert (stored(message).Status, stored(message).OutputIncomplete) == (Status.FINISHED, None)


def test_a_start_that_failed_halfway_is_watched_if_the_engine_is_away_then(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    """It may run: nobody says that it failed before the engine does."""
    engine.start.side_effect = Refusal(Reason.ENGINE_ERROR, "500")
    engine.inspect.side_effect = [Unreachable, {**OVER, "ExitCode": 3}]
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Inspect["ExitCode"]) == (Status.FINISHED, 3)


def test_an_engine_that_is_away_for_a_while_is_waited_for(
    runner: HeldRunner, engine: Any, message: Received, clock: Clock
) -> None:
    paused = Refusal(Reason.CONTAINER_PAUSED, "paused")
    engine.inspect.side_effect = [Unreachable("away"), paused, OVER]
    runner.run(message)
    assert stored(message).Status == Status.FINISHED
    assert len(clock.sleeps) == 2


@pytest.mark.parametrize("reason", Reason)
def test_a_command_is_over_if_its_container_is_away(
    runner: HeldRunner, engine: Any, message: Received, clock: Clock, reason: Reason
) -> None:
    engine.inspect.side_effect = [Refusal(reason, "no"), OVER]
    runner.run(message)
    is_away = MEANINGS[reason].container_is_away
    assert stored(message).Status == (Status.RUNNING_FAILED if is_away else Status.FINISHED)


def test_a_container_removed_under_its_command_says_container_gone(
    runner: HeldRunner, engine: Any, message: Received
) -> None:
    engine.inspect.side_effect = Refusal(Reason.CONTAINER_NOT_RUNNING, "not running")
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.Reason) == (Status.RUNNING_FAILED, Reason.CONTAINER_GONE)
    assert result.Output == b"hi\n"


def test_a_log_that_becomes_too_long_says_what_is_missing(runner: HeldRunner, engine: Any) -> None:
    message = accepted(NOW, LogBytes=10)
    engine.start.side_effect = printing((1, b"0123456789-----" + b"x" * LAST_BYTES))
    runner.run(message)
    result = stored(message)
    assert (result.Status, result.OutputIncomplete) == (Status.FINISHED, True)
    assert result.OutputDropped == {"Bytes": 5, "After": 10}
    assert result.OutputSize == 10 + LAST_BYTES
    assert logged_of(message) == b"0123456789" + b"x" * LAST_BYTES


def test_a_log_that_s3_refuses_does_not_say_what_is_missing(
    runner: HeldRunner, engine: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def refuse(log: GrowingLog) -> None:
        raise ConnectionError

    message = accepted(NOW, LogBytes=10)
    engine.start.side_effect = printing((1, b"0123456789-----" + b"x" * LAST_BYTES))
    monkeypatch.setattr(GrowingLog, "finish", refuse)
    runner.run(message)
    assert (stored(message).OutputIncomplete, stored(message).OutputDropped) == (True, None)
