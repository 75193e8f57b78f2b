"""What is held stays ours: the newest receipt counts, and one bad queue harms no other."""

from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.clients import queues
from chalicelib.clients.queues import VISIBILITY_SECONDS, Received, TargetMessage
from tests.support.clock import Clock, Enough
from worker.health import Pulse
from worker.lease import Lease

TARGET = TargetMessage("j1", "1.000000", "c1")
OTHER = TargetMessage("j1", "1.000000", "c2")


def received(receipt: str, target: TargetMessage = TARGET, id: str = "m1") -> Received:
    return Received(target, id, receipt, first=True)


def new_lease() -> Lease:
    return Lease(Pulse())


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(queues.hold, return_value=[])
    monkeypatch.setattr(queues, "hold", fake)
    return fake


def turns(lease: Lease, monkeypatch: pytest.MonkeyPatch, count: int) -> list[float]:
    """Runs this many turns of the lease; returns how long it slept before each, and the last."""
    clock = Clock(most_sleeps=count).install(monkeypatch)
    with pytest.raises(Enough):
        lease.run()
    return clock.sleeps


def test_a_message_is_taken_once_and_its_newest_receipt_counts() -> None:
    lease = new_lease()
    assert lease.hold("q", received("old"))
    assert not lease.hold("q", received("new"))
    assert lease.newest_receipt("q", TARGET) == "new"


@pytest.fixture
def delete(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(queues.delete)
    monkeypatch.setattr(queues, "delete", fake)
    return fake


def test_of_two_messages_for_a_target_the_older_is_deleted(delete: Any) -> None:
    lease = new_lease()
    assert lease.hold("q", received("r1", id="m1"))
    assert not lease.hold("q", received("r2", id="m2"))
    delete.assert_called_once_with("q", "r1")
    assert lease.newest_receipt("q", TARGET) == "r2"


def test_a_target_is_the_same_whatever_application_its_message_names(delete: Any) -> None:
    told = TargetMessage(*TARGET.ids, app_name="2048")
    lease = new_lease()
    assert lease.hold("q", received("r1", id="m1"))
    assert not lease.hold("q", received("r2", told, id="m2"))
    delete.assert_called_once_with("q", "r1")
    assert lease.newest_receipt("q", TARGET) == "r2"


def test_a_message_delivered_again_is_not_deleted(delete: Any) -> None:
    lease = new_lease()
    lease.hold("q", received("r1"))
    lease.hold("q", received("r2"))
    delete.assert_not_called()


def test_a_second_message_that_cannot_be_deleted_harms_nobody(delete: Any) -> None:
    delete.side_effect = ConnectionError
    lease = new_lease()
    lease.hold("q", received("r1", id="m1"))
    assert not lease.hold("q", received("r2", id="m2"))
    assert lease.newest_receipt("q", TARGET) == "r2"


def test_the_same_target_on_another_queue_is_another_message() -> None:
    lease = new_lease()
    assert lease.hold("q1", received("r1"))
    assert lease.hold("q2", received("r2"))


def test_a_released_message_may_be_taken_again() -> None:
    lease = new_lease()
    lease.hold("q", received("old"))
    lease.release("q", TARGET)
    assert lease.hold("q", received("new"))


def test_a_turn_extends_the_newest_receipts_of_each_queue(
    hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = new_lease()
    lease.hold("q1", received("old"))
    lease.hold("q1", received("new"))
    lease.hold("q1", received("other", OTHER))
    lease.hold("q2", received("third"))
    assert turns(lease, monkeypatch, 1) == [VISIBILITY_SECONDS / 3] * 2
    asked = {call.args[0]: sorted(call.args[1]) for call in hold.call_args_list}
    assert asked == {"q1": ["new", "other"], "q2": ["third"]}
    assert {call.args[2] for call in hold.call_args_list} == {VISIBILITY_SECONDS}


def test_a_released_message_is_not_extended(hold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = new_lease()
    lease.hold("q", received("r"))
    lease.release("q", TARGET)
    turns(lease, monkeypatch, 1)
    hold.assert_not_called()


def test_letting_go_makes_all_visible_at_once(hold: Any) -> None:
    lease = new_lease()
    lease.hold("q", received("r"))
    lease.release_all()
    hold.assert_called_once_with("q", ["r"], 0)


def test_a_message_that_was_let_go_is_not_extended_again(
    hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = new_lease()
    lease.hold("q", received("r"))
    lease.release_all()
    Clock().install(monkeypatch)
    lease.run()
    hold.assert_called_once_with("q", ["r"], 0)


def test_a_failed_turn_does_not_end_the_lease(hold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = new_lease()
    lease.hold("q", received("r"))
    hold.side_effect = [ConnectionError, []]
    turns(lease, monkeypatch, 2)
    assert hold.call_count == 2


def test_a_queue_that_fails_does_not_delay_the_others(
    hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = new_lease()
    lease.hold("gone", received("r1"))
    lease.hold("good", received("r2"))

    def answer(url: str, receipts: list[str], seconds: int) -> list[str]:
        if url == "gone":
            raise ConnectionError
        return []

    hold.side_effect = answer
    turns(lease, monkeypatch, 1)
    assert [call.args[0] for call in hold.call_args_list] == ["gone", "good"]


@pytest.mark.usefixtures("aws")
def test_an_extended_message_stays_invisible_and_a_let_go_one_does_not() -> None:
    url = queues.ensure_queue("n1")
    queues.send([(url, TARGET)])
    lease = new_lease()
    lease.hold(url, queues.receive(url, 1, 0)[0])
    lease._extend(VISIBILITY_SECONDS)
    assert queues.receive(url, 1, 0) == []
    lease.release_all()
    assert [again.target for again in queues.receive(url, 1, 0)] == [TARGET]
