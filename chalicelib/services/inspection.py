"""Executions as their callers see them: what became of each target."""

import re
import time
from typing import Any

from chalicelib import store
from chalicelib.domain.access import Caller
from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.ids import parse_executor_id, parse_job_id
from chalicelib.domain.results import has_failed, has_succeeded
from chalicelib.domain.states import Status
from chalicelib.domain.targets import Target, in_order
from chalicelib.schemas.executions import ExecutionAnswer
from chalicelib.services import outcomes
from chalicelib.services.outputs import shorten
from chalicelib.store.models import Execution, Result


def inspect_execution(caller: Caller, job_id: str, executor_id: str) -> ExecutionAnswer:
    """What became of each target. Raises JobNotFound, ExecutionNotFound."""
    execution = get_execution(caller, job_id, executor_id)
    targets = in_order(store.targets.get_parts(execution))
    results = outcomes.list_results(execution, targets)
    answer = ExecutionAnswer(
        JobId=job_id,
        ExecutorId=executor_id,
        CreateTime=float(executor_id),
        Target=list(map(_show_target, targets)),
        Result=_show_all(execution, targets, results),
        Total=len(results),
        Succeeded=sum(has_succeeded(result.Status, result.Inspect) for result in results),
        Failed=sum(has_failed(result.Status, result.Inspect) for result in results),
    )
    shorten(answer)
    return answer


def get_execution(caller: Caller, job_id: str, executor_id: str) -> Execution:
    """The execution, if the caller sees its application, even if its job was deleted or moved since.

    Raises JobNotFound, ExecutionNotFound.
    """
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


def _show_all(
    execution: Execution, targets: list[Target], results: list[Result]
) -> list[dict[str, Any]]:
    inspects = outcomes.restore_inspects(execution, results)
    outputs = store.outputs.get_ends(results)
    return [
        {**inspect, **_show_target(target), **_show(result, output)}
        for inspect, target, result, output in zip(inspects, targets, results, outputs, strict=True)
    ]


def _show_target(target: Target) -> dict[str, str]:
    return {"ContainerId": target.container_id, "NodeId": target.node_id}


def _show(result: Result, output: bytes) -> dict[str, Any]:
    """Our own fields of a result, as the contract has them."""
    shown: dict[str, Any] = {"Status": result.Status}
    for name in ("ID", "E", "Reason", "StartTime", "EndTime", "OutputIncomplete", "OutputDropped"):
        value = getattr(result, name)
        if value is not None:
            shown[name] = value
    if result.Status in (Status.FINISHED, Status.RUNNING_FAILED):
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
