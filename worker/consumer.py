"""One node's consumer: receives messages before their turn, runs each target in a thread, drains."""

import threading
import time

import structlog

from chalicelib.clients import queues
from chalicelib.clients.queues import MAX_BATCH, Received, TargetMessage
from worker import metrics
from worker.config import WorkerSettings
from worker.engine.client import Engine
from worker.engine.events import ExitCodes
from worker.engine.exit_file import ExitFile
from worker.health import Health
from worker.heartbeat import Heartbeat, ServedNode
from worker.lease import Lease
from worker.output.outputs import Outputs
from worker.patience import tolerated
from worker.settler import Settler
from worker.target.command import Commands
from worker.target.run import Runner
from worker.turns import Turn, Turns

log = structlog.stdlib.get_logger(__name__)

# The pause after a failed poll: AWS is out of reach, or the queue was deleted.
_FAILED_POLL_SECONDS = 5
# The pause between two polls while no place is free: after messages came, and after none came.
_BUSY_PAUSE_SECONDS, _QUIET_PAUSE_SECONDS = 0.05, 1.0
# Between two looks at whether a place is free: one becomes free when a command's first minute is over.
_LOOK_SECONDS = 1.0


class Consumer(threading.Thread):
    """Serves one engine until somebody calls `drain`. The thread ends when its last command has ended."""

    def __init__(
        self,
        url: str,
        worker_settings: WorkerSettings,
        lease: Lease,
        settler: Settler,
        heartbeat: Heartbeat,
        health: Health,
        commands: Commands,
        outputs: Outputs,
    ) -> None:
        super().__init__(name=f"consumer {url}", daemon=True)
        self._settings = worker_settings
        self._lease = lease
        self._settler = settler
        self._heartbeat = heartbeat
        self._health = health
        self._pulse = health.pulse(self.name)
        self._commands = commands
        self._outputs = outputs
        # Each command keeps one connection open for its output and needs another for its calls.
        self._engine = Engine(url, pool=2 * worker_settings.max_running)
        file = ExitFile(worker_settings.spool_dir, url)
        self.exit_codes = ExitCodes(self._engine, file, health.pulse(f"events {url}"))
        self._turns = Turns(worker_settings.max_commands, worker_settings.max_running)
        self._draining = threading.Event()
        self._polled = time.time()

    def drain(self) -> None:
        """Takes no new messages from now on."""
        self._draining.set()

    def run(self) -> None:
        node = self._announce()
        if node is not None:
            metrics.LAST_POLL.labels(node.node_id).set_function(lambda: time.time() - self._polled)
            metrics.AHEAD.labels(node.node_id).set_function(lambda: self._turns.waiting)
            self._serve(node)

    def _serve(self, node: ServedNode) -> None:
        runner = Runner(
            self._engine,
            self.exit_codes,
            node.node_id,
            self._commands,
            self._outputs,
            self._settings.redact,
        )
        name = f"poller {self._engine.url}"
        poller = threading.Thread(target=self._poll_on, args=(node, name), name=name, daemon=True)
        poller.start()
        while not self._draining.is_set():
            self._pulse.beat()
            if turn := self._turns.take(_LOOK_SECONDS):
                self._start(runner, node, turn)
            if not poller.is_alive() and not self._draining.is_set():
                raise RuntimeError(f"the {name} has ended unexpectedly")
        self._put_back(node.queue_url, self._turns.close())
        self._health.ended(self.name)
        self._turns.wait_for_all()
        poller.join()

    def _announce(self) -> ServedNode | None:
        """Connects to the engine, makes its node's queue and announces the node. Tries until that works.

        Returns None if the worker drains before that.
        """
        while not self._draining.is_set():
            self._pulse.beat()
            try:
                node_id, hostname = self._engine.connect()
                node = ServedNode(
                    node_id, hostname, queues.ensure_queue(node_id), self._turns.is_busy
                )
                self._heartbeat.serve(node)
            except Exception as error:  # noqa: BLE001 - engine and AWS may come up after us
                log.warning("node not announced yet", engine=self._engine.url, error=str(error))
                self._draining.wait(_FAILED_POLL_SECONDS)
            else:
                log.info("serving", node_id=node_id, hostname=hostname, engine=self._engine.url)
                return node
        self._health.ended(self.name)
        return None

    def _poll_on(self, node: ServedNode, name: str) -> None:
        """Receives messages until the drain, also messages that have to wait for their turn."""
        pulse = self._health.pulse(name)
        pause = _QUIET_PAUSE_SECONDS
        while not self._draining.is_set():
            pulse.beat()
            if free := self._turns.free:
                self._poll(node, min(free, MAX_BATCH), self._settings.poll_seconds)
                pause = _QUIET_PAUSE_SECONDS
            elif not self._draining.wait(pause) and (room := self._turns.room(_LOOK_SECONDS)):
                # This poll does not wait: messages that come later are for a worker that has a place.
                pause = (
                    _BUSY_PAUSE_SECONDS
                    if self._poll(node, min(room, MAX_BATCH), 0)
                    else _QUIET_PAUSE_SECONDS
                )
        self._health.ended(name)

    def _poll(self, node: ServedNode, at_most: int, seconds: int) -> int:
        """Takes in hand the messages that come within `seconds`. Returns how many."""
        try:
            messages = queues.receive(node.queue_url, at_most, seconds)
            self._polled = time.time()
            if self._draining.is_set():
                # Messages that we put back or let go come to our own poll first, since it waits already.
                # We must not take them in hand again: the lease may still hold them.
                _make_visible(node.queue_url, [message.receipt for message in messages])
                return 0
            for message in messages:
                self._take_in_hand(node.queue_url, message)
        except Exception:  # whatever went wrong, the next poll may work
            log.warning("poll failed", exc_info=True)
            metrics.RETRIES.labels("poll").inc()
            self._draining.wait(_FAILED_POLL_SECONDS)
            with tolerated("poll"):  # the queue may have been deleted
                queues.ensure_queue(node.node_id)
            return 0
        return len(messages)

    def _take_in_hand(self, queue_url: str, message: Received) -> None:
        if self._lease.hold(queue_url, message):
            self._commands.hold(message.target)
            if not self._turns.put(message):  # the drain began just now
                self._put_back(queue_url, [message])

    def _put_back(self, queue_url: str, messages: list[Received]) -> None:
        """Gives messages back whose turn did not come, so that another worker runs their targets."""
        receipts = [self._lease.newest_receipt(queue_url, message.target) for message in messages]
        for message in messages:
            self._let_go(queue_url, message.target)
        _make_visible(queue_url, receipts)

    def _let_go(self, queue_url: str, target: TargetMessage) -> None:
        self._lease.release(queue_url, target)
        self._commands.release(target)

    def _start(self, runner: Runner, node: ServedNode, turn: Turn) -> None:
        target = turn.message.target
        name = f"run {target.container_id[:12]}"
        thread = threading.Thread(
            target=self._work, args=(runner, node, turn), name=name, daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads for now; the message comes again
            log.exception("message not taken up")
            metrics.RETRIES.labels("target").inc()
            self._let_go(node.queue_url, target)
            self._turns.leave(turn.message)

    def _work(self, runner: Runner, node: ServedNode, turn: Turn) -> None:
        message = turn.message
        target = message.target
        with structlog.contextvars.bound_contextvars(
            job_id=target.job_id,
            executor_id=target.executor_id,
            container_id=target.container_id,
        ):
            if turn.has_place or self._is_taken_up(runner, message):
                self._run_target(runner, node, message)
            elif not self._turns.put_off(message):
                self._put_back(node.queue_url, [message])

    def _is_taken_up(self, runner: Runner, message: Received) -> bool:
        """Whether the command may run already, or be over. We ask this of a message that came again."""
        try:
            return runner.is_taken_up(message.target)
        except Exception:
            log.warning("result not read", exc_info=True)
            return False  # it waits for its turn, and then we look again

    def _run_target(self, runner: Runner, node: ServedNode, message: Received) -> None:
        target = message.target
        with metrics.IN_FLIGHT.labels(node.node_id).track_inprogress():
            try:
                end = runner.run(message, lambda: self._turns.give_place_back(message))
            except Exception:
                # The message stays on the queue and comes again. If its target is not over then, a worker
                # adopts it.
                log.exception("message not brought to its end")
                metrics.RETRIES.labels("target").inc()
                self._lease.release(node.queue_url, target)
            else:
                self._settler.settle(node.queue_url, target, end)
            finally:
                self._commands.release(target)
                self._turns.leave(message)


def _make_visible(queue_url: str, receipts: list[str]) -> None:
    """Makes messages visible to other workers now. If SQS does not answer, that takes up to a minute."""
    with tolerated("hold", queue_url=queue_url):
        for batch in queues.split_into_batches(receipts):
            queues.hold(queue_url, batch, 0)
