"""What an execution runs, with its secrets opened; and keeps these out of what is stored."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from chalicelib import store
from chalicelib.clients import sealing
from chalicelib.clients.queues import TargetMessage
from chalicelib.domain.exec_inspect import Inspect, expect, shorten
from chalicelib.domain.targets import Part
from chalicelib.domain.words import split
from chalicelib.store.models import Execution
from worker.output.redact import Needles, redact

_T = TypeVar("_T")


class Place(NamedTuple):
    """Where a target is among those of its execution."""

    part: int
    # Its index in the request.
    position: int
    # How many targets its part has.
    part_size: int


# How much of its output's end one result has, and how much all results of an execution have together. An
# output of up to this size is not in S3: an item's write units cost less than a PUT then. With its keys,
# it is an item of 8 KiB.
_TAIL_BYTES, _ALL_TAILS_BYTES = 8000, 4 * 1024**2
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True)
class Command:
    """What an execution runs, with its secrets opened."""

    line: str
    secrets: list[str]
    env: list[str]
    user: str
    privileged: bool
    may_run_as_root: bool
    app_name: str
    service_name: str
    own_containers_only: bool
    created: float
    expires: int
    tail: int
    # The job's own limit of its log.
    log_bytes: int | None = None

    @property
    def words(self) -> list[str]:
        """What is executed, without the secrets. Raises ValueError if the line does not split."""
        return split(self.line)

    @cached_property
    def needles(self) -> Needles:
        """The texts that nobody must see: the secrets."""
        return Needles(self.secrets)

    def mask(self, inspect: dict[str, Any]) -> dict[str, Any]:
        """The engine's inspect with the secret arguments, which are the last ones, masked."""
        if not self.secrets:
            return inspect
        process = inspect["ProcessConfig"]
        plain = process["arguments"][: -len(self.secrets)]
        masked = [*plain, *("*" * len(secret) for secret in self.secrets)]
        return {**inspect, "ProcessConfig": {**process, "arguments": masked}}

    def shorten(self, inspect: Inspect, exec_id: str, container_id: str) -> Inspect:
        """What is stored of the engine's inspect: masked, and without what follows from the execution."""
        words = [*self.words, *("*" * len(secret) for secret in self.secrets)]
        expected = expect(exec_id, container_id, words, self.user, self.privileged)
        return shorten(self.mask(inspect), expected)

    def scrub(self, message: str) -> str:
        """An error's text without secrets, and short enough to be stored a thousand times."""
        return redact(message, self.needles)[:_MESSAGE_CHARACTERS]


class Commands:
    """The executions in this worker's hands. Each is read and opened once for all its targets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], _Held] = {}

    def hold(self, target: TargetMessage) -> None:
        """Counts one more target of the execution as in hand."""
        key = (target.job_id, target.executor_id)
        with self._lock:
            self._held.setdefault(key, _Held(*key)).targets += 1

    def release(self, target: TargetMessage) -> None:
        """Counts one target less. With the last one, we forget the plain secrets."""
        key = (target.job_id, target.executor_id)
        with self._lock:
            self._held[key].targets -= 1
            if not self._held[key].targets:
                del self._held[key]

    def place_of(self, target: TargetMessage, node_id: str) -> Place | None:
        """Where a held target is among its execution's.

        None if the execution has no such container on this node, or the node cannot run it. Raises
        ExecutionNotFound.
        """
        part = self._of(target).find_part(target.part)
        found = part.find(target.container_id) if part else None
        if part is None or found is None or found.node_id != node_id or found.refusal:
            return None
        return Place(found.part, found.position, len(part))

    def part_of_container(self, target: TargetMessage, node_id: str, long_id: str) -> int:
        """The part that has a container's long id: there the target meets all other spellings of it.

        If the long id is a target of the node, this is its part. If not, it is the node's first part: the
        same for all spellings. The node has the part of `target`, and maybe some before and after that.
        """
        parts = self._of(target).list_parts_of_node(node_id, target.part)
        found = (part.find(long_id) for part in parts)
        spelled_so = (one.part for one in found if one and one.node_id == node_id)
        return next(spelled_so, parts[0].number)

    def load(self, target: TargetMessage) -> Command:
        """What a held target runs. Raises ExecutionNotFound, SecretsUnreadable."""
        return self._of(target).command.get()

    def _of(self, target: TargetMessage) -> "_Held":
        with self._lock:
            return self._held[target.job_id, target.executor_id]


class _Once(Generic[_T]):
    """A value that is made once: the first thread that asks makes it, and the others wait.

    If it fails, all of them get the error, and the next thread that asks tries again.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Future[_T] | None = None

    def get(self) -> _T:
        with self._lock:
            makes = self._made is None
            made = self._made = self._made or Future()
        if makes:
            try:
                made.set_result(self._make())
            except BaseException as error:  # noqa: BLE001 - it is raised below, here and in all that wait
                self._made = None  # the next to ask tries again
                made.set_exception(error)
        return made.result()


class _Held:
    """One execution, and how many of its targets are in hand."""

    def __init__(self, job_id: str, executor_id: str) -> None:
        self.targets = 0
        self._execution = _Once(lambda: store.executions.get_execution(job_id, executor_id))
        self._parts: dict[int, _Once[Part | None]] = {}
        self.command = _Once(lambda: _open(self._execution.get()))

    def find_part(self, number: int) -> Part | None:
        """One part of the execution's targets, or None. Raises ExecutionNotFound."""
        execution = self._execution.get()
        make = partial(store.targets.find_part, execution, number)
        return self._parts.setdefault(number, _Once(make)).get()

    def list_parts_of_node(self, node_id: str, number: int) -> list[Part]:
        """All parts that have targets of the node, in order. The part with this number is one of them."""
        before = self._take_while_of_node(node_id, count(number, -1))
        return [*reversed(before), *self._take_while_of_node(node_id, count(number + 1))]

    def _take_while_of_node(self, node_id: str, numbers: Iterable[int]) -> list[Part]:
        found = []
        for number in numbers:
            part = self.find_part(number)
            if not part or node_id not in part.nodes:
                break
            found.append(part)
        return found


def _open(execution: Execution) -> Command:
    sealed = sealing.unpack(execution.Sealed)
    return Command(
        line=execution.Cmd,
        secrets=[sealing.open_sealed(execution.JobId, secret) for secret in sealed],
        env=list(execution.Env),
        user=execution.User,
        privileged=execution.Privileged,
        may_run_as_root=bool(execution.MayRunAsRoot),
        app_name=execution.AppName,
        service_name=execution.ServiceName,
        own_containers_only=bool(execution.OwnContainersOnly),
        created=float(execution.ExecutorId),
        expires=int(execution.ExpiresAt),
        log_bytes=int(execution.LogBytes) or None,
        tail=min(_TAIL_BYTES, _ALL_TAILS_BYTES // int(execution.Total)),
    )
