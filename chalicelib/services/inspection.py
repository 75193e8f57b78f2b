"""Executions as their callers see them: what became of each target, and its log."""

import re
import time
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.access import Caller
from chalicelib.domain.errors import ContainerNotFound, ExecutionNotFound
from chalicelib.domain.ids import parse_executor_id, parse_job_id
from chalicelib.domain.results import has_failed, has_succeeded
from chalicelib.domain.states import TERMINAL, Status
from chalicelib.schemas.executions import ExecutionAnswer
from chalicelib.services import outcomes
from chalicelib.services.outputs import shorten
from chalicelib.store.models import Execution, Result

# A log up to this size is in the answer itself: Lambda answers up to 6 MB, and base64 makes a log a
# third longer.
DIRECT_BYTES = 4 * 1024**2
_WITHOUT_LOG = (Status.STARTING, Status.CREATE_FAILED)


def inspect_execution(caller: Caller, job_id: str, executor_id: str) -> ExecutionAnswer:
    """What became of each target. Raises JobNotFound, ExecutionNotFound."""
    execution = _get(caller, job_id, executor_id)
    results = outcomes.list_results(execution)
    shown = [
        _show(target, result) for target, result in zip(execution.Target, results, strict=True)
    ]
    answer = ExecutionAnswer(
        JobId=job_id,
        ExecutorId=executor_id,
        CreateTime=float(executor_id),
        Target=execution.Target,
        Result=shown,
        Total=len(results),
        Succeeded=sum(has_succeeded(result.Status, result.Inspect) for result in results),
        Failed=sum(has_failed(result.Status, result.Inspect) for result in results),
    )
    shorten(answer)
    return answer


class Log(Struct):
    """A target's log: its content, or None if it is long; and a link to it, if S3 has anything of it."""

    filename: str
    content: bytes | None
    link: str = ""


def read_log(caller: Caller, job_id: str, executor_id: str, container_id: str) -> Log:
    """A target's log so far. If the target failed before it ran, its log is the text of its `E`.

    Raises JobNotFound, ExecutionNotFound, ContainerNotFound.
    """
    execution = _get(caller, job_id, executor_id)
    target = next((t for t in execution.Target if t["ContainerId"] == container_id), None)
    if target is None:
        raise ContainerNotFound(container_id)
    result = outcomes.get_result(execution, target)
    name = _filename(executor_id, container_id)
    key = logs.log_key(job_id, executor_id, container_id)
    # If an output is incomplete, the log may have more of it than the result says.
    is_known = result.Status in TERMINAL and not result.OutputIncomplete
    if result.Status in _WITHOUT_LOG or (is_known and not result.OutputSize):
        return Log(name, (result.E or "").encode())
    kept = bytes(result.Output or b"")
    if is_known and result.OutputSize == len(kept):
        # A short text is nowhere else. Other bytes are in S3 too: not every client can have them from us.
        return Log(name, kept, logs.make_link(key, name))
    is_long = is_known and result.OutputSize > DIRECT_BYTES
    content = None if is_long else logs.read(key, DIRECT_BYTES)
    if content == b"":
        # If a log should be there and is not, we do not call it empty: the caller gets the link.
        content = None if is_known else (result.E or "").encode()
    return Log(name, content, logs.make_link(key, name))


def _filename(executor_id: str, container_id: str) -> str:
    started = datetime.fromtimestamp(float(executor_id), UTC)
    return f"job-container-{container_id}-{started:%Y-%m-%d-%H:%M:%S}.log"


def _get(caller: Caller, job_id: str, executor_id: str) -> Execution:
    """The execution, if the caller sees its application, even if its job was deleted or moved since."""
    parse_job_id(job_id)
    try:
        execution = _get_stored(job_id, executor_id)
    except ExecutionNotFound:
        # A caller that must not know of the job must not learn from this that it is there.
        job = store.jobs.get_job(job_id)
        caller.require_visible(job_id, job.AppName)
        raise
    caller.require_visible(job_id, execution.AppName)
    return execution


def _get_stored(job_id: str, executor_id: str) -> Execution:
    execution = store.executions.get_execution(job_id, parse_executor_id(executor_id))
    # DynamoDB deletes expired items only some days later, and results and executions in any order.
    if execution.ExpiresAt < time.time():
        raise ExecutionNotFound(executor_id)
    return execution


def _show(target: dict[str, str], result: Result) -> dict[str, Any]:
    """A result as the contract has it: the engine's own fields beside ours."""
    shown: dict[str, Any] = {**(result.Inspect or {}), **target, "Status": result.Status}
    for name in ("ID", "E", "Reason", "StartTime", "EndTime", "OutputIncomplete", "OutputDropped"):
        value = getattr(result, name)
        if value is not None:
            shown[name] = value
    if result.Status in (Status.FINISHED, Status.RUNNING_FAILED):
        output = bytes(result.Output or b"")
        size = int(result.OutputSize or 0)
        cut = size > len(output)
        shown["Output"] = _whole_characters(output, cut).decode(errors="replace")
        shown["OutputSize"] = size
        shown["OutputTruncated"] = cut
    return shown


def _whole_characters(output: bytes, cut: bool) -> bytes:
    """The output without the rest of a character that was cut in two."""
    if not cut:
        return output
    return re.sub(rb"\A[\x80-\xbf]{1,3}", b"", output)
