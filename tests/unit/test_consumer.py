"""One node's consumer: how many messages it takes, what it does with them, how it leaves."""

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib import queues
from chalicelib.queues import Received, TargetMessage
from worker import consumer as module
from worker.command import Commands
from worker.config import load
from worker.consumer import Consumer
from worker.engine import Engine
from worker.health import Health, Pulse
from worker.heartbeat import Heartbeat, ServedNode
from worker.lease import Lease
from worker.output import SpoolDirectory
from worker.run import Runner

NODE = ServedNode("n1", "host", "q")


def received(number: int) -> Received:
    return Received(TargetMessage("j1", "1.000000", f"c{number}"), f"m{number}", f"r{number}", True)


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(queues)
    for name in ("receive", "delete", "hold", "ensure_queue"):
        monkeypatch.setattr(queues, name, getattr(fake, name))
    return fake


@pytest.fixture
def lease() -> Lease:
    return Lease(Pulse())


@pytest.fixture
def consumer(lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    monkeypatch.setattr(module, "_PAUSE", 0)
    settings = load({"MAX_COMMANDS": "12", "POLL_SECONDS": "1"})
    heartbeat = Heartbeat("w", Pulse())
    spools = SpoolDirectory(tmp_path, 100)
    return Consumer("unix:///e", settings, lease, heartbeat, Health(), Commands(), spools)


def test_a_poll_takes_no_more_than_there_are_places(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.side_effect = lambda url, at_most, wait: [received(n) for n in range(at_most)]
    assert len(consumer._poll(NODE)) == 10
    sqs.receive.side_effect = lambda url, at_most, wait: [
        received(n) for n in range(10, 10 + at_most)
    ]
    assert len(consumer._poll(NODE)) == 2
    assert consumer._free._value == 0


def test_places_that_got_no_message_are_free_again(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.return_value = [received(1)]
    assert len(consumer._poll(NODE)) == 1
    assert consumer._free._value == 11


def test_a_target_in_our_hands_is_not_taken_twice(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE)
    assert consumer._poll(NODE) == []
    assert consumer._free._value == 11


def test_a_failed_poll_gives_its_places_back(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.side_effect = ConnectionError
    assert consumer._poll(NODE) == []
    assert consumer._free._value == 12


def test_what_comes_while_it_drains_goes_back_at_once(consumer: Consumer, sqs: Any) -> None:
    def told_to_drain(url: str, at_most: int, wait: int) -> list[Received]:
        consumer.drain()
        return [received(1), received(2)]

    sqs.receive.side_effect = told_to_drain
    assert consumer._poll(NODE) == []
    sqs.hold.assert_called_once_with("q", ["r1", "r2"], 0)
    assert consumer._free._value == 12


@pytest.fixture
def runner() -> Any:
    return create_autospec(Runner, instance=True)


def handled(consumer: Consumer, lease: Lease, runner: Any) -> None:
    """One message, from the poll to its end."""
    consumer._free.acquire()
    lease.hold("q", received(1))
    consumer._handle(runner, NODE, received(1))


def test_a_message_is_deleted_after_its_target_has_ended(
    consumer: Consumer, lease: Lease, sqs: Any, runner: Any
) -> None:
    runner.run.side_effect = lambda message: sqs.delete.assert_not_called()
    handled(consumer, lease, runner)
    sqs.delete.assert_called_once_with("q", "r1")
    assert lease.hold("q", received(1))
    assert consumer._free._value == 12


def test_a_message_whose_target_has_not_ended_stays_and_its_place_is_free(
    consumer: Consumer, lease: Lease, sqs: Any, runner: Any
) -> None:
    runner.run.side_effect = ConnectionError
    handled(consumer, lease, runner)
    sqs.delete.assert_not_called()
    assert lease.hold("q", received(1))
    assert consumer._free._value == 12


def test_an_engine_that_is_not_there_yet_is_asked_again(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_autospec(Engine, instance=True)
    engine.url = "unix:///e"
    engine.connect.side_effect = [ConnectionError, ConnectionError, ("n1", "host")]
    monkeypatch.setattr(consumer, "_engine", engine)
    monkeypatch.setattr(
        queues, "ensure_queue", create_autospec(queues.ensure_queue, return_value="q")
    )
    serve = create_autospec(consumer._heartbeat.serve)
    monkeypatch.setattr(consumer._heartbeat, "serve", serve)
    assert consumer._announce() == NODE
    assert engine.connect.call_count == 3
