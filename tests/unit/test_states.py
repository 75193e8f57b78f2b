"""No order of moves leaves an end."""

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.states import FIRST, MOVES, TERMINAL, Status, expired_message, sources


@given(st.sampled_from(sorted(FIRST)), st.lists(st.sampled_from(sorted(Status))))
def test_no_move_leaves_an_end(status: Status, wishes: list[Status]) -> None:
    for wish in wishes:
        moved = wish if status in sources(wish) else status
        assert status not in TERMINAL or moved == status
        status = moved


def test_every_status_but_starting_can_be_reached_and_left_or_is_an_end() -> None:
    reached = FIRST.union(*MOVES.values())
    assert reached | {Status.STARTING} == set(Status)
    assert reached - MOVES.keys() == TERMINAL


def test_the_moves_are_those_of_a_targets_life() -> None:
    moves = {(source, target) for target in Status for source in sources(target)}
    assert moves == {
        (Status.CREATED, Status.RUNNING),
        (Status.CREATED, Status.FINISHED),
        (Status.CREATED, Status.RUNNING_FAILED),
        (Status.RUNNING, Status.FINISHED),
        (Status.RUNNING, Status.RUNNING_FAILED),
    }


def test_an_expired_target_says_after_how_long() -> None:
    assert "within 600 s" in expired_message(600)
