"""No order of moves leaves an end; what each reason means is said once, and the docs say the same."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.states import (
    MEANINGS,
    MOVES,
    TERMINAL,
    Reason,
    Status,
    expired_message,
    sources,
)

FIRST = frozenset({Status.CREATED, Status.CREATE_FAILED})
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results.md"


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


def test_each_reason_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_given_somewhere(reason: Reason) -> None:
    modules = [path for room in ("chalicelib", "worker") for path in (ROOT / room).rglob("*.py")]
    others = [path for path in modules if path.name != "states.py"]
    assert others
    assert any(f"Reason.{reason.name}" in path.read_text() for path in others)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_comes_with_failures_only(reason: Reason) -> None:
    assert MEANINGS[reason].statuses
    assert MEANINGS[reason].statuses <= TERMINAL - {Status.FINISHED}


@pytest.mark.parametrize("reason", Reason)
def test_a_command_that_was_never_made_did_not_run(reason: Reason) -> None:
    meaning = MEANINGS[reason]
    assert not (meaning.may_have_run and meaning.statuses == {Status.CREATE_FAILED})


@pytest.mark.parametrize(
    ("heading", "status", "may_have_run"),
    [
        ("With `CREATE_FAILED`: the command did not run", Status.CREATE_FAILED, None),
        ("With `RUNNING_FAILED`: the command did not run", Status.RUNNING_FAILED, False),
        ("With `RUNNING_FAILED`: the command may have run", Status.RUNNING_FAILED, True),
    ],
)
def test_the_docs_say_what_each_reason_means(
    heading: str, status: Status, may_have_run: bool | None
) -> None:
    section = RESULTS.read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
    bullets = re.findall(r"^- (.*?):", section, re.MULTILINE)
    explained = {word for bullet in bullets for word in re.findall(r"`(\w+)`", bullet)}
    assert explained == {
        reason
        for reason, meaning in MEANINGS.items()
        if status in meaning.statuses and may_have_run in (None, meaning.may_have_run)
    }
