"""A target's log, as its readers get it: its bytes, or a link to one object in S3.

While the command runs, its log is in segments. Its reader wishes that the worker brings them up to date,
and waits some seconds for that. A reader that cannot have the bytes as the answer (they are too many, or
are not text) wishes that the worker puts them together into one object.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.access import Caller
from chalicelib.domain.errors import ContainerNotFound, LogNotReady
from chalicelib.domain.segments import LogState, SegmentGone, Span, log_name, total
from chalicelib.domain.states import TERMINAL, Status
from chalicelib.services import inspection, outcomes
from chalicelib.store.models import Execution, Result

# A log up to this size is in the answer itself: Lambda answers up to 6 MB, and base64 makes a log a
# third longer.
DIRECT_BYTES = 4 * 1024**2
# The result keeps no more of its output.
_KEPT_BYTES = 8 * 1024
# From the first of several looks on, readers wait so long until the log is up to date.
_CATCH_UP_SECONDS = 4
# A reader waits so long in all. The gateway waits for 29 s.
_WAIT_SECONDS = 20
_LOOK_SECONDS = 0.4
# The worker replaces segments by longer ones, the more seldom the longer they are.
_TRIES = 3
_WITHOUT_LOG = (Status.STARTING, Status.CREATE_FAILED)


@dataclass(frozen=True)
class Log:
    """A target's log: its content or, if its reader cannot have that as the answer, a link to it."""

    filename: str
    content: bytes | None
    link: str = ""


def read_log(
    caller: Caller,
    job_id: str,
    executor_id: str,
    container_id: str,
    fits: Callable[[bytes], bool] = lambda content: True,
) -> Log:
    """A target's log so far. If the target failed before it ran, its log is the text of its `E`.

    `fits` says whether the reader can have these bytes as the answer, if they are not too many. Raises
    JobNotFound, ExecutionNotFound, ContainerNotFound, LogNotReady.
    """
    execution = inspection.get_execution(caller, job_id, executor_id)
    found = (part.find(container_id) for part in store.targets.get_parts(execution))
    target = next(filter(None, found), None)
    if target is None:
        raise ContainerNotFound(container_id)
    reading = _Reading(
        execution, container_id, fits, lambda: outcomes.get_result(execution, target)
    )
    for _ in range(_TRIES):
        with suppress(SegmentGone):
            return reading.read()
    raise LogNotReady("the log's pieces changed while they were read; ask again")


class _Reading:
    """One read of one log."""

    def __init__(
        self,
        execution: Execution,
        container_id: str,
        fits: Callable[[bytes], bool],
        get_result: Callable[[], Result],
    ) -> None:
        self._execution = execution
        self._container_id = container_id
        self._log = log_name(execution.JobId, execution.ExecutorId, container_id)
        self._filename = _filename(execution.ExecutorId, container_id)
        self._fits = fits
        self._get_result = get_result
        self._deadline = time.monotonic() + _WAIT_SECONDS

    def read(self) -> Log:
        result = self._get_result()
        if result.Status in _WITHOUT_LOG:
            return Log(self._filename, (result.E or "").encode())
        if result.Status not in TERMINAL:
            since = store.wishes.watch(self._execution, time.time())
            result = self._wait_for_worker(since) or result
        if result.Status in TERMINAL:
            return self._read_ended(result)
        return self._read_running()

    def _wait_for_worker(self, since: float) -> Result | None:
        """Waits until the worker has heard of the watch and brought the log up to date, but not long.

        Returns the result if the command is over by then.
        """
        while time.time() < since + _CATCH_UP_SECONDS:
            if store.segments.get_state(self._log).caught_up >= since:
                break
            result = self._get_result()
            if result.Status in TERMINAL:
                return result
            time.sleep(_LOOK_SECONDS)
        return None

    def _read_running(self) -> Log:
        state, spans = store.segments.list_segments(self._log)
        if log := self._read_so_far(state, spans):
            return log
        size = total(spans)
        store.wishes.assemble(self._execution, self._container_id, time.time())
        while time.monotonic() < self._deadline:
            time.sleep(_LOOK_SECONDS)
            state = store.segments.get_state(self._log)
            if state.assembled >= size:
                return self._link(state.assembled)
        raise LogNotReady(f"the log has {size} bytes, which are being put together; ask again")

    def _read_ended(self, result: Result) -> Log:
        size = int(result.OutputSize or 0)
        is_whole = not result.OutputIncomplete
        kept = store.outputs.get_end(result) if is_whole and size <= _KEPT_BYTES else b""
        if is_whole and size == len(kept):
            # A short text is nowhere else. Other bytes are in S3 too: not every reader can have them.
            content = kept or (result.E or "").encode()
            return self._answer(content) or self._link(size)
        if is_whole and (log := self._read_object(size)):
            return log
        # If some output is missing, there may be more of it than the result says.
        state, spans = store.segments.list_segments(self._log)
        if state.assembled or spans:
            if log := self._read_so_far(state, spans):
                return log
            raise LogNotReady(f"the log has {total(spans)} bytes, which are not put together yet")
        # A log that should be there and is not must not be called empty: its reader gets the link.
        return self._link(size) if is_whole else Log(self._filename, (result.E or "").encode())

    def _read_so_far(self, state: LogState, spans: list[Span]) -> Log | None:
        """All that is stored; None if it has to be put together for this reader."""
        size = total(spans)
        is_assembled = state.assembled >= max(size, 1)
        if is_assembled and (log := self._read_object(state.assembled)):
            return log
        if size > DIRECT_BYTES:
            return None
        return self._answer(logs.read_segments(self._log, spans))

    def _read_object(self, size: int) -> Log | None:
        """The log as it was put together, with that size; None if S3 does not have it."""
        if size > DIRECT_BYTES:
            return self._link(size)
        content = logs.read(logs.whole_key(self._log, size), DIRECT_BYTES)
        return (self._answer(content) or self._link(size)) if content else None

    def _answer(self, content: bytes) -> Log | None:
        """The log itself; None if the reader cannot have it as the answer."""
        return Log(self._filename, content) if self._fits(content) else None

    def _link(self, size: int) -> Log:
        key = logs.whole_key(self._log, size)
        return Log(self._filename, None, logs.make_link(key, self._filename))


def _filename(executor_id: str, container_id: str) -> str:
    started = datetime.fromtimestamp(float(executor_id), UTC)
    return f"job-container-{container_id}-{started:%Y-%m-%d-%H:%M:%S}.log"
