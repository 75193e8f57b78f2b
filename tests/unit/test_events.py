"""What is kept of an engine's events, and since when none of them is missing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.domain.states import Reason
from tests.support.clock import NOW, Clock, Enough
from worker.engine import events as module
from worker.engine import exit_file
from worker.engine.client import Engine
from worker.engine.errors import Refusal, Unreachable
from worker.engine.events import ExitCodes
from worker.engine.exit_file import ExecEnd, ExitFile
from worker.health import Pulse

AT = "2027-01-15T08:{:02}:{:02}+00:00".format


@pytest.fixture
def engine() -> Any:
    fake = create_autospec(Engine, instance=True)
    fake.url = "unix:///e"
    return fake


@pytest.fixture
def file(tmp_path: Path) -> ExitFile:
    return ExitFile(tmp_path, "unix:///e")


@pytest.fixture
def exit_codes(engine: Any, file: ExitFile, clock: Clock) -> ExitCodes:
    return ExitCodes(engine, file, Pulse())


def following(exit_codes: ExitCodes, engine: Any, *turns: Any) -> None:
    """Each turn is what the engine sends when it is asked; at an exception the connection breaks."""
    left = iter(turns)

    def ends(since: int) -> Iterator[tuple[str, int, int]]:
        for told in next(left, [Enough()]):
            if isinstance(told, BaseException):
                raise told
            yield told

    engine.follow_ends.side_effect = ends
    with pytest.raises(Enough):
        exit_codes.run()


def end(number: int, code: int = 0) -> tuple[str, int, int]:
    return f"e{number}", code, int(NOW * 1e9) + number


def test_remembered_ends_and_new_ones_are_known(exit_codes: ExitCodes, engine: Any) -> None:
    following(exit_codes, engine, [end(1, 7), end(2, 127)], [end(2, 127), end(3, 3)])
    assert [exit_codes.find(f"e{number}") for number in (1, 2, 3, 4)] == [7, 127, 3, None]
    # From the last one on: the events in between are sent as well.
    assert [call.args for call in engine.follow_ends.call_args_list] == [
        (0,),
        (int(NOW * 1e9) + 2,),
        (int(NOW * 1e9) + 3,),
    ]
    # Silence does not lead to a new connection.
    engine.connect.assert_called_once_with()


@pytest.mark.parametrize("failure", [Unreachable("gone"), ValueError("not JSON")])
def test_after_any_error_a_new_connection_follows_the_events(
    exit_codes: ExitCodes, engine: Any, failure: Exception
) -> None:
    following(exit_codes, engine, [end(1, 7), failure], [end(1, 7), end(2, 3)])
    assert (exit_codes.find("e1"), exit_codes.find("e2")) == (7, 3)
    assert engine.connect.call_count == 2
    # The engine still had the last one: nothing is missing.
    assert exit_codes.since == AT(0, 0)


def test_an_engine_that_is_not_there_yet_is_tried_again(exit_codes: ExitCodes, engine: Any) -> None:
    engine.connect.side_effect = [Unreachable("no"), Unreachable("no"), None]
    following(exit_codes, engine, [end(1, 7)])
    assert exit_codes.find("e1") == 7
    assert exit_codes.since == AT(0, 4)


def test_events_that_the_engine_forgot_meanwhile_are_a_gap(
    exit_codes: ExitCodes, engine: Any, clock: Clock
) -> None:
    following(exit_codes, engine, [end(1), Unreachable("gone")], [end(300)])
    assert exit_codes.since == AT(0, 2)
    assert exit_codes.find("e1") == 0


def test_only_the_newest_ends_are_kept(
    exit_codes: ExitCodes, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    ends = [(f"e{second}", second, int((NOW + second) * 1e9)) for second in range(1, 6)]
    following(exit_codes, engine, ends)
    assert [exit_codes.find(f"e{second}") for second in range(1, 6)] == [None, None, 3, 4, 5]
    # Ends that are dropped here are as unknown as those that the engine had forgotten.
    assert exit_codes.since == AT(0, 2)


def test_an_event_that_comes_a_moment_later_is_waited_for(exit_codes: ExitCodes) -> None:
    timer = threading.Timer(0.1, lambda: exit_codes._keep("e1", 7, NOW))
    timer.start()
    assert exit_codes.wait_for("e1") == 7
    timer.join()


def test_an_event_that_never_comes_is_not_waited_for_for_ever(
    exit_codes: ExitCodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EVENT_SECONDS", 0.05)
    assert exit_codes.wait_for("e1") is None


def test_the_loop_beats_while_the_engine_is_away(engine: Any, file: ExitFile, clock: Clock) -> None:
    pulse = create_autospec(Pulse, instance=True)
    refusal = Refusal(Reason.ENGINE_ERROR, "too old")
    engine.connect.side_effect = [Unreachable("no"), refusal, Enough]
    with pytest.raises(Enough):
        ExitCodes(engine, file, pulse).run()
    assert pulse.beat.call_count == 3


def test_the_ends_that_a_worker_heard_of_outlive_it(
    exit_codes: ExitCodes, engine: Any, file: ExitFile, clock: Clock
) -> None:
    following(exit_codes, engine, [end(1, 7), end(2, 3)])
    clock.now += 60
    after = ExitCodes(engine, file, Pulse())
    assert (after.find("e1"), after.find("e2")) == (7, 3)
    # It goes on from there: the engine still has the last one, so nothing was missed since then.
    following(after, engine, [end(2, 3), end(3, 1)])
    assert after.since == AT(0, 0)
    assert engine.follow_ends.call_args_list[-2].args == (int(NOW * 1e9) + 2,)
    assert [end.exec_id for end in file.read()] == ["e1", "e2", "e3"]


def test_events_forgotten_between_two_workers_are_a_gap(
    exit_codes: ExitCodes, engine: Any, file: ExitFile, clock: Clock
) -> None:
    following(exit_codes, engine, [end(1)])
    clock.now += 60
    after = ExitCodes(engine, file, Pulse())
    following(after, engine, [end(300)])
    assert after.since == AT(1, 0)
    assert ExitCodes(engine, file, Pulse()).since == AT(1, 0)


def test_the_file_does_not_grow_without_end(
    file: ExitFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exit_file, "_LARGEST_BYTES", 200)
    for number in range(100):
        file.add(ExecEnd(f"e{number}", 1, number, NOW))
    known = [end.when for end in file.read()]
    assert known == list(range(known[0], 100))
    assert 4 <= len(known) < 20
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 600


def test_a_line_that_was_cut_off_is_ignored(file: ExitFile, tmp_path: Path) -> None:
    file.add(ExecEnd("e1", 137, 1, NOW))
    (written,) = tmp_path.iterdir()
    written.write_bytes(written.read_bytes() + b'\n["e2", 13')
    file.add(ExecEnd("e3", 0, 3, NOW))
    assert [end.exec_id for end in file.read()] == ["e1", "e3"]
    assert written.stat().st_mode & 0o777 == 0o600


def test_lines_of_another_kind_do_not_stop_a_workers_start(file: ExitFile, tmp_path: Path) -> None:
    file.add(ExecEnd("e1", 3, 1_000_000_000, 1.0))
    (path,) = tmp_path.glob("exits-*")
    lines = [
        b'["a", "b", "c", "d"]',
        b"[1, 2, 3, 4]",
        b'["a", 1]',
        b"\xff",
        b"[" * 100_000,
        b"{}",
        b"7",
    ]
    path.write_bytes(path.read_bytes() + b"\n" + b"\n".join(lines))
    assert file.read() == [ExecEnd("e1", 3, 1_000_000_000, 1.0)]


def test_a_full_disk_costs_only_what_would_be_on_it(
    engine: Any, tmp_path: Path, clock: Clock
) -> None:
    exit_codes = ExitCodes(engine, ExitFile(tmp_path / "nothing", "unix:///e"), Pulse())
    following(exit_codes, engine, [end(1, 7), end(2, 3)])
    assert (exit_codes.find("e1"), exit_codes.find("e2")) == (7, 3)
