"""One node's consumer: how many messages it takes, what it does with them, how it leaves."""

import threading
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.clients import queues
from chalicelib.clients.queues import Received
from tests.support.builders import build_message
from tests.support.waiting import wait_until
from worker import consumer as module
from worker.config import load
from worker.consumer import Consumer
from worker.engine.client import Engine
from worker.health import Health, Pulse
from worker.heartbeat import Heartbeat, ServedNode
from worker.lease import Lease
from worker.output.outputs import Outputs
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader
from worker.settler import Settler
from worker.target.command import Commands
from worker.target.run import Runner

NODE = ServedNode("n1", "host", "q", lambda: False)


def received(number: int) -> Received:
    return build_message(f"c{number}", message_id=f"m{number}", receipt=f"r{number}")


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(queues)
    for name in ("receive", "hold", "ensure_queue"):
        monkeypatch.setattr(queues, name, getattr(fake, name))
    return fake


@pytest.fixture
def lease() -> Lease:
    return Lease(Pulse())


@pytest.fixture
def settler(lease: Lease) -> Any:
    return create_autospec(Settler, instance=True)


@pytest.fixture
def consumer(
    lease: Lease, settler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Consumer:
    monkeypatch.setattr(module, "_FAILED_POLL_SECONDS", 0)
    settings = load({"MAX_COMMANDS": "12", "POLL_SECONDS": "1", "SPOOL_DIR": str(tmp_path)})
    heartbeat = Heartbeat("w", Pulse())
    spools = SpoolDirectory(tmp_path, 100, 10**6)
    outputs = Outputs(spools, Uploader(Pulse()), Salvager(tmp_path))
    own = (lease, settler, heartbeat, Health(), Commands(), outputs)
    return Consumer("unix:///e", settings, *own)


def waiting(consumer: Consumer) -> int:
    return consumer._turns.waiting


def test_messages_are_received_ahead_and_held(consumer: Consumer, lease: Lease, sqs: Any) -> None:
    sqs.receive.side_effect = lambda url, at_most, wait: [received(n) for n in range(at_most)]
    consumer._poll(NODE, 10, 1)
    assert waiting(consumer) == 10
    assert not lease.hold("q", received(9))


def test_a_target_in_our_hands_is_not_taken_twice(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE, 10, 1)
    consumer._poll(NODE, 10, 1)
    assert waiting(consumer) == 1


def test_a_failed_poll_makes_sure_of_the_queue(consumer: Consumer, sqs: Any) -> None:
    sqs.receive.side_effect = ConnectionError
    consumer._poll(NODE, 10, 1)
    sqs.ensure_queue.assert_called_once_with("n1")


def test_a_message_that_comes_after_the_drain_goes_back_at_once(
    consumer: Consumer, lease: Lease, sqs: Any
) -> None:
    consumer._turns.close()
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE, 10, 1)
    sqs.hold.assert_called_once_with("q", ["r1"], 0)
    assert lease.hold("q", received(1))
    assert not consumer._commands._held


def test_a_message_we_let_go_that_comes_to_our_own_poll_goes_back(
    consumer: Consumer, sqs: Any
) -> None:
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE, 10, 1)
    consumer.drain()
    consumer._poll(NODE, 10, 1)
    sqs.hold.assert_called_once_with("q", ["r1"], 0)


def test_a_drain_puts_waiting_messages_back_and_waits_for_running_ones(
    consumer: Consumer, settler: Any, lease: Lease, sqs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve places, twenty targets, each of which waits until all are started that will be."""
    enough, may_end = threading.Barrier(13), threading.Event()

    def run(runner: Runner, message: Received, rest: Any) -> None:
        enough.wait(10)
        may_end.wait(10)

    monkeypatch.setattr(Runner, "run", run)
    batches = iter([[received(n) for n in range(10)], [received(n) for n in range(10, 20)]])
    sqs.receive.side_effect = lambda *_: next(batches, [])
    served = threading.Thread(target=consumer._serve, args=(NODE,))
    served.start()
    enough.wait(10)
    consumer.drain()
    wait_until(lambda: sqs.hold.called)
    assert served.is_alive()
    may_end.set()
    served.join(10)
    assert not served.is_alive()
    sqs.hold.assert_called_once_with("q", [f"r{n}" for n in range(12, 20)], 0)
    # Their messages are the settler's now, and held until it has deleted them.
    assert settler.settle.call_count == len(lease._held) == 12
    assert not consumer._commands._held


def test_a_poller_that_dies_takes_its_consumer_with_it(
    consumer: Consumer, sqs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_poll_on", lambda *_: None)
    with pytest.raises(RuntimeError, match="poller unix:///e has ended"):
        consumer._serve(NODE)


def test_if_no_thread_can_be_made_the_message_comes_again(
    consumer: Consumer, lease: Lease, sqs: Any, monkeypatch: pytest.MonkeyPatch, runner: Any
) -> None:
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE, 10, 1)
    turn = consumer._turns.take(0)
    assert turn
    monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError))
    consumer._start(runner, NODE, turn)
    assert lease.hold("q", received(1))
    assert not consumer._turns._running


def again(number: int) -> Received:
    return Received(received(number).target, f"m{number}", f"r{number}", False)


def test_an_adoption_needs_no_place(
    consumer: Consumer, lease: Lease, sqs: Any, runner: Any
) -> None:
    runner.is_taken_up.return_value = True
    sqs.receive.return_value = [*map(received, range(12)), again(20)]
    consumer._poll(NODE, 10, 1)
    turn = consumer._turns.take(0)
    assert turn
    consumer._work(runner, NODE, turn)
    (call,) = runner.run.call_args_list
    assert call.args[0] == again(20)
    assert len(consumer._turns._running) == 0


@pytest.mark.parametrize("taken_up", [{"return_value": False}, {"side_effect": ConnectionError}])
def test_a_message_that_came_again_but_runs_nowhere_waits_for_a_place(
    consumer: Consumer, lease: Lease, sqs: Any, runner: Any, taken_up: dict[str, Any]
) -> None:
    runner.is_taken_up.configure_mock(**taken_up)
    sqs.receive.return_value = [again(20)]
    consumer._poll(NODE, 10, 1)
    turn = consumer._turns.take(0)
    assert turn
    consumer._work(runner, NODE, turn)
    runner.run.assert_not_called()
    assert not lease.hold("q", again(20))
    turn = consumer._turns.take(0)
    assert turn
    assert turn.has_place
    consumer._work(runner, NODE, turn)
    assert runner.run.call_count == 1
    assert not consumer._commands._held


def test_a_message_that_came_again_goes_back_if_the_drain_begins(
    consumer: Consumer, lease: Lease, sqs: Any, runner: Any
) -> None:
    runner.is_taken_up.return_value = False
    sqs.receive.return_value = [again(20)]
    consumer._poll(NODE, 10, 1)
    turn = consumer._turns.take(0)
    assert turn
    consumer._turns.close()
    consumer._work(runner, NODE, turn)
    sqs.hold.assert_called_once_with("q", ["r20"], 0)
    assert lease.hold("q", again(20))


def test_without_a_place_only_messages_that_are_there_are_received(
    consumer: Consumer, sqs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker waits for its next message; a busy one must not take it away from that one."""
    monkeypatch.setattr(module, "_QUIET_PAUSE_SECONDS", 0)
    asked = []

    def receive(url: str, at_most: int, seconds: int) -> list[Received]:
        asked.append((at_most, seconds))
        if len(asked) == 4:
            consumer.drain()
        return [received(10 * len(asked) + n) for n in range(at_most)]

    sqs.receive.side_effect = receive
    consumer._poll_on(NODE, "poller")
    assert asked == [(10, 1), (2, 1), (10, 0), (10, 0)]


@pytest.fixture
def runner() -> Any:
    return create_autospec(Runner, instance=True)


def handled(consumer: Consumer, runner: Any, sqs: Any) -> None:
    """One message, from the poll to its end."""
    sqs.receive.return_value = [received(1)]
    consumer._poll(NODE, 10, 1)
    turn = consumer._turns.take(0)
    assert turn
    consumer._work(runner, NODE, turn)
    assert not consumer._turns._running
    assert not consumer._commands._held


def test_a_message_is_held_until_its_target_is_settled(
    consumer: Consumer, settler: Any, lease: Lease, sqs: Any, runner: Any
) -> None:
    """Its place and its secrets are given back before: they are not needed for that."""
    runner.run.side_effect = lambda message, rest: settler.settle.assert_not_called()
    handled(consumer, runner, sqs)
    settler.settle.assert_called_once_with("q", received(1).target, None)
    assert not lease.hold("q", received(1))


def test_a_message_whose_target_has_not_ended_stays_and_its_place_is_free(
    consumer: Consumer, settler: Any, lease: Lease, sqs: Any, runner: Any
) -> None:
    runner.run.side_effect = ConnectionError
    handled(consumer, runner, sqs)
    settler.settle.assert_not_called()
    assert lease.hold("q", received(1))


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
    announced = consumer._announce()
    assert announced == ServedNode("n1", "host", "q", consumer._turns.is_busy)
    assert engine.connect.call_count == 3
