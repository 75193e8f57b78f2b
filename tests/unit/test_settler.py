"""The settler: a message is deleted only after its target is counted; a complete part is reported."""

from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.clients.queues import TargetMessage
from chalicelib.domain.ends import Counted, End
from tests.support.builders import build_message
from worker import settler as module
from worker.health import Pulse
from worker.lease import Lease
from worker.settler import Settler
from worker.target.outcome import StoredEnd

URL = "q"


def target(number: int) -> TargetMessage:
    return build_message(f"c{number}").target


def end(position: int, part: int = 0, size: int = 32) -> StoredEnd:
    return StoredEnd(End(position, True, 1.0), part, size, 99)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of AWS, in order."""
    made: list[tuple[Any, ...]] = []
    counted: dict[int, set[int]] = {}

    def add_ends(job: str, execution: str, part: int, ends: list[End], expires: int) -> Counted:
        made.append(("count", part, sorted(one.position for one in ends)))
        counted.setdefault(part, set()).update(one.position for one in ends)
        return Counted(frozenset(counted[part]))

    def delete(url: str, receipts: list[str]) -> list[str]:
        made.append(("delete", url, sorted(receipts)))
        return []

    monkeypatch.setattr(
        store.counts, "add_ends", create_autospec(store.counts.add_ends, side_effect=add_ends)
    )
    monkeypatch.setattr(
        queues, "delete_batch", create_autospec(queues.delete_batch, side_effect=delete)
    )
    report = create_autospec(
        queues.report_ended, side_effect=lambda *ids: made.append(("report", *ids))
    )
    monkeypatch.setattr(queues, "report_ended", report)
    return made


@pytest.fixture
def lease() -> Lease:
    return Lease(Pulse())


@pytest.fixture
def settler(lease: Lease) -> Settler:
    found = Settler(lease, Pulse())
    found.drain()
    return found


@pytest.fixture
def settle(settler: Settler, lease: Lease) -> Callable[..., None]:
    def take_over(number: int, end: StoredEnd | None, url: str = URL) -> None:
        message = build_message(f"c{number}", message_id=f"m{number}", receipt=f"r{number}")
        lease.hold(url, message)
        settler.settle(url, message.target, end)

    return take_over


def turn(settler: Settler) -> bool:
    return settler._settle(settler._gather())


def test_ends_of_one_part_are_counted_at_once_and_then_deleted(
    settler: Settler, lease: Lease, settle: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    for number in range(12):
        settle(number, end(number))
    assert not settler.is_idle
    assert turn(settler)
    assert settler.is_idle
    assert not lease._held
    assert calls[0] == ("count", 0, list(range(12)))
    assert [call[0] for call in calls[1:]] == ["delete", "delete"]
    assert sum(len(call[2]) for call in calls[1:]) == 12


def test_the_last_end_of_a_part_is_reported_before_its_message_is_deleted(
    settler: Settler, settle: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    settle(0, end(0, part=2, size=2))
    turn(settler)
    settle(1, end(1, part=2, size=2))
    turn(settler)
    assert calls == [
        ("count", 2, [0]),
        ("delete", URL, ["r0"]),
        ("count", 2, [1]),
        ("report", "j1", "1.000000"),
        ("delete", URL, ["r1"]),
    ]


def test_a_message_that_comes_again_as_it_is_released_is_settled_again(
    settler: Settler,
    lease: Lease,
    settle: Callable[..., None],
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQS may refuse a delete. Then the message is there at once, and its end is the same."""
    release = lease.release

    def come_again(url: str, over: TargetMessage) -> None:
        release(url, over)
        monkeypatch.setattr(lease, "release", release)
        settle(0, end(0))

    monkeypatch.setattr(lease, "release", come_again)
    settle(0, end(0))
    turn(settler)
    assert not settler.is_idle


def test_an_end_that_comes_again_is_reported_again(
    settler: Settler, settle: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    """The worker that counted it may have died before it reported."""
    for _ in range(2):
        settle(0, end(0, size=1))
        turn(settler)
    assert [call[0] for call in calls] == ["count", "report", "delete"] * 2


def test_a_message_of_no_target_is_only_deleted(
    settler: Settler, settle: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    settle(0, None)
    assert turn(settler)
    assert calls == [("delete", URL, ["r0"])]


@pytest.mark.parametrize("failing", ["add_ends", "report_ended"])
def test_what_is_not_counted_is_held_and_tried_again(
    settler: Settler,
    lease: Lease,
    settle: Callable[..., None],
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    """Other parts are settled meanwhile."""
    owner: Any = store.counts if failing == "add_ends" else queues
    whole = getattr(owner, failing)

    def refuse(job: str, execution: str, part: int = 1, *rest: Any) -> Any:
        if part == 1:
            raise ConnectionError
        return whole(job, execution, part, *rest)

    settle(0, end(0, part=0))
    settle(1, end(1, part=1, size=1))
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, refuse)
        assert not turn(settler)
    assert list(lease._held) == [(URL, target(1).ids)]
    assert ("delete", URL, ["r0"]) in calls
    assert turn(settler)
    assert calls[-2:] == [("report", "j1", "1.000000"), ("delete", URL, ["r1"])]
    assert settler.is_idle


def test_what_is_not_deleted_is_held_and_tried_again(
    settler: Settler,
    lease: Lease,
    settle: Callable[..., None],
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(0, end(0))
    settle(1, end(1), url="other")
    whole = queues.delete_batch

    def refuse(url: str, receipts: list[str]) -> list[str]:
        if url == URL:
            raise ConnectionError
        return whole(url, receipts)

    with monkeypatch.context() as patch:
        patch.setattr(queues, "delete_batch", refuse)
        assert not turn(settler)
    assert list(lease._held) == [(URL, target(0).ids)]
    assert turn(settler)
    assert calls[-1] == ("delete", URL, ["r0"])


def test_a_message_that_sqs_does_not_delete_comes_again(
    settler: Settler,
    lease: Lease,
    settle: Callable[..., None],
    calls: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(0, end(0))
    monkeypatch.setattr(queues, "delete_batch", lambda url, receipts: ["ReceiptHandleIsInvalid"])
    assert turn(settler)
    assert not lease._held


def test_the_newest_receipt_deletes_a_message(
    settler: Settler, lease: Lease, settle: Callable[..., None], calls: list[tuple[Any, ...]]
) -> None:
    settle(0, end(0))
    assert not lease.hold(URL, build_message("c0", message_id="m0", receipt="newer"))
    turn(settler)
    assert calls[-1] == ("delete", URL, ["newer"])


def test_ends_are_waited_for_for_a_moment(
    lease: Lease, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a drain, the second end shares the requests of the first one."""
    settler = Settler(lease, Pulse())
    settler.settle(URL, target(0), end(0))
    late = lambda seconds: settler.settle(URL, target(1), end(1))  # noqa: E731
    monkeypatch.setattr(settler._draining, "wait", late)
    assert len(settler._gather()) == 2
    assert module._GATHER_SECONDS < 1
