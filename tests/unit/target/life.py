"""What the tests of a target's life share: an execution, its message, and what is stored of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chalicelib import store
from chalicelib.clients import sealing
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.domain.states import Status
from chalicelib.services import outcomes
from chalicelib.store.models import Result
from tests.support.builders import build_execution, build_message, build_result
from worker.engine.stream import Frame
from worker.health import Pulse
from worker.output.outputs import Outputs
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader
from worker.target.command import Commands
from worker.target.outcome import StoredEnd
from worker.target.run import Runner

SECRET = "s3cret value"
# What an engine says of an exec that is over.
OVER = {
    "ID": "e1",
    "Running": False,
    "ExitCode": 0,
    "Pid": 7,
    "ProcessConfig": {"entrypoint": "echo", "arguments": ["hi", SECRET]},
}


@contextmanager
def in_hand(commands: Commands, target: TargetMessage) -> Iterator[None]:
    """As a consumer does: holds the execution while one of its targets is in hand."""
    commands.hold(target)
    try:
        yield
    finally:
        commands.release(target)


class HeldRunner:
    """A runner whose messages are in hand."""

    def __init__(
        self,
        engine: Any,
        exit_codes: Any,
        folder: Path,
        redact: bool = True,
        node_id: str = "n1",
    ) -> None:
        self._commands = Commands()
        spools = SpoolDirectory(folder, 10**6, 10**6)
        # Nobody starts its thread: it uploads when a test says so.
        self.uploader = Uploader(Pulse())
        outputs = Outputs(spools, self.uploader, Salvager(folder))
        self._runner = Runner(engine, exit_codes, node_id, self._commands, outputs, redact)

    def run(
        self, message: Received, give_place_back: Callable[[], None] = lambda: None
    ) -> StoredEnd | None:
        with in_hand(self._commands, message.target):
            return self._runner.run(message, give_place_back)


def printing(*frames: Frame) -> Callable[[str], Iterator[Frame]]:
    """What an engine does at a start: it gives the output, a generator that can be closed."""
    return lambda exec_id: (frame for frame in frames)


def container(id: str, **host: Any) -> dict[str, Any]:
    """What an engine says of an ordinary container."""
    return {"Id": id, "Config": {"User": ""}, "HostConfig": host, "Mounts": []}


def accepted(when: float, **fields: Any) -> Received:
    """An execution that was stored then, and its message."""
    executor_id = f"{when:.6f}"
    defaults = {"Cmd": "echo hi", "Privileged": True, "MayRunAsRoot": True, "User": "u"}
    sealed = sealing.pack([sealing.seal("j1", SECRET)])
    defaults |= {"Env": ["A=b"], "Sealed": sealed, "ExpiresAt": int(when) + 1000}
    build_execution(executor_id=executor_id, **{**defaults, **fields}).save()
    return build_message(executor_id=executor_id, receipt="receipt")


def again(message: Received) -> Received:
    return Received(message.target, "m1", "receipt 2", first=False)


def stored(message: Received) -> Result:
    found = store.results.get_result("j1", message.target.executor_id, 0, "c1")
    assert found
    return found


def inspected(message: Received) -> dict[str, Any]:
    """What readers get of the engine's inspect."""
    execution = store.executions.get_execution("j1", message.target.executor_id)
    (inspect,) = outcomes.restore_inspects(execution, [stored(message)])
    return inspect


def claimed(message: Received, status: Status = Status.CREATED) -> None:
    """Another worker claimed it with the exec e1."""
    executor_id = message.target.executor_id
    inspect = {"Inspect": {"ExitCode": 0}} if status == Status.FINISHED else {}
    build_result(executor_id=executor_id, Status=status, ID="e1", **inspect).save()


def claimed_during_the_create(engine: Any, message: Received) -> None:
    """Another worker claims it while the engine makes our exec, e2."""

    def create(*arguments: Any) -> str:
        claimed(message, Status.RUNNING)
        return "e2"

    engine.create.side_effect = create


def make_unreadable(message: Received) -> None:
    """Its secret was sealed for another job."""
    found = store.executions.get_execution("j1", message.target.executor_id)
    found.Sealed = sealing.pack([sealing.seal("j2", SECRET)])
    found.save()
