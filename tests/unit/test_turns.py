"""Whose turn it is: every application gets its own, whatever another one has started."""

import threading

import pytest

from chalicelib.clients.queues import Received
from tests.support.builders import build_message
from tests.support.clock import NOW, Clock
from worker.turns import AHEAD, Turns

pytestmark = pytest.mark.usefixtures("clock")


def message(app: str, number: int, first: bool = True) -> Received:
    container, executor_id = f"{app}{number}", f"{NOW:.6f}"
    return build_message(container, executor_id, f"m{number}", f"r{number}", first, app)


def filled(turns: Turns, **apps: int) -> Turns:
    """With so many messages of each application, one application after the other."""
    for app, count in apps.items():
        for number in range(count):
            assert turns.put(message(app, number))
    return turns


def taken(turns: Turns) -> list[str]:
    """The containers whose turn it is now, until no more have any."""
    found = []
    while turn := turns.take(0):
        found.append(turn.message.target.container_id)
    return found


def test_applications_get_their_turns_one_after_the_other() -> None:
    assert taken(filled(Turns(6, 100), a=5, b=2, c=1)) == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_an_application_with_fewer_places_is_served_first() -> None:
    turns = filled(Turns(4, 100), a=10)
    assert taken(turns) == ["a0", "a1", "a2", "a3"]
    filled(turns, b=3)
    for number in range(3):
        turns.leave(message("a", number))
    assert taken(turns) == ["b0", "a4", "b1"]


def test_a_place_is_given_back_after_a_minute(clock: Clock) -> None:
    turns = filled(Turns(2, 100), a=5)
    assert len(taken(turns)) == 2
    clock.now += 59
    assert taken(turns) == []
    clock.now += 1
    assert len(taken(turns)) == 2


def test_a_message_that_only_waits_for_an_end_gives_its_place_back() -> None:
    turns = filled(Turns(1, 100), a=2)
    assert taken(turns) == ["a0"]
    turns.give_place_back(message("a", 0))
    assert taken(turns) == ["a1"]
    turns.leave(message("a", 0))


def test_no_more_targets_run_than_may_in_all(clock: Clock) -> None:
    turns = filled(Turns(2, 6), a=1, b=1, c=1, d=1, e=1, f=1, g=1)
    for _ in range(3):
        assert len(taken(turns)) == 2
        clock.now += 60
    assert taken(turns) == []
    turns.put(message("a", 9, first=False))
    assert taken(turns) == []
    turns.leave(message("a", 0))
    assert taken(turns) == ["a9"]


def test_one_application_leaves_as_many_as_it_has_to_the_others(clock: Clock) -> None:
    turns = filled(Turns(4, 8), a=8)
    assert len(taken(turns)) == 4
    clock.now += 60
    assert taken(turns) == []
    filled(turns, b=8)
    assert taken(turns) == ["b0", "b1"]
    filled(turns, c=8)
    clock.now += 60
    assert taken(turns) == ["c0"]


def test_a_target_that_is_too_late_never_waits(clock: Clock) -> None:
    turns = filled(Turns(4, 8), a=5)
    assert len(taken(turns)) == 4
    clock.now += 60
    assert taken(turns) == []
    clock.now += 600
    assert taken(turns) == ["a4"]


def test_a_message_that_comes_again_is_first_and_takes_no_place() -> None:
    turns = filled(Turns(1, 100), a=2)
    for number in (8, 9):
        turns.put(message("a", number, first=False))
    turns_taken = [turns.take(0) for _ in range(4)]
    assert [turn and (turn.message.id, turn.has_place) for turn in turns_taken] == [
        ("m8", False),
        ("m9", False),
        ("m0", True),
        None,
    ]


def test_a_message_that_came_again_but_does_not_run_yet_waits_for_a_place() -> None:
    turns = filled(Turns(1, 4), a=1)
    again = message("a", 9, first=False)
    turns.put(again)
    assert taken(turns) == ["a9", "a0"]
    assert turns.put_off(again)
    assert taken(turns) == []
    turns.leave(message("a", 0))
    turn = turns.take(0)
    assert turn == (again, True)
    turns.close()
    assert not turns.put_off(again)
    assert not turns._running


def test_room_is_for_so_many_that_wait_and_comes_back_with_their_turn() -> None:
    turns = filled(Turns(1, 100), a=AHEAD - 1)
    assert turns.room(0) == 1
    filled(turns, b=1)
    assert turns.room(0) == 0
    assert turns.take(0)
    assert turns.room(0) == 1


def test_so_many_are_free_as_do_not_have_to_wait() -> None:
    turns = Turns(2, 100)
    assert turns.free == 2
    filled(turns, a=2)
    assert turns.free == 0
    assert taken(turns) == ["a0", "a1"]
    assert turns.free == 0
    turns.leave(message("a", 0))
    assert turns.free == 1


def test_after_the_close_nobody_has_a_turn_and_waiting_ones_are_returned() -> None:
    turns = filled(Turns(1, 100), a=3)
    assert taken(turns) == ["a0"]
    assert turns.close() == [message("a", 1), message("a", 2)]
    assert not turns.put(message("a", 4))
    ended = threading.Thread(target=turns.wait_for_all)
    ended.start()
    ended.join(0.05)
    assert ended.is_alive()
    turns.leave(message("a", 0))
    ended.join(5)
    assert not ended.is_alive()


def test_a_second_message_may_have_its_turn_before_the_first_has_left() -> None:
    turns = Turns(2, 100)
    first = message("a", 0)
    second = Received(first.target, "m9", "r9", True)
    for each in (first, second):
        turns.put(each)
    assert taken(turns) == ["a0", "a0"]
    turns.leave(first)
    turns.give_place_back(second)
    turns.leave(second)
    assert not turns._running
