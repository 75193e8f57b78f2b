"""Starts of jobs: start, inspect, log."""

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.clients.queues import TargetMessage
from chalicelib.config import settings
from chalicelib.domain.access import Caller
from chalicelib.domain.errors import ContainerNotFound, ExecutionNotFound, JobNotFound
from chalicelib.domain.states import TERMINAL, Reason, Status, expired_message
from chalicelib.schemas import ExecutionAnswer, JobAnswer, StartRequest, check_command
from chalicelib.services import audit, jobs
from chalicelib.services.audit import Action
from chalicelib.services.outputs import fit
from chalicelib.store.models import COMMAND, OPEN, AuditEntry, Execution, Job, Node, Result

logger = structlog.stdlib.get_logger(__name__)

_EXECUTOR_ID = re.compile(r"\d{1,12}\.\d{6}", re.ASCII)
_SECOND = 1_000_000  # microseconds
# A log up to this size is answered itself: Lambda answers 6 MB, and base64 takes a third more.
DIRECT_BYTES = 4 * 1024**2
# A worker claims nothing after the deadline. A claim begun just before it, and clocks that differ, may
# take so many seconds more; then a target without a result will never get one.
_EXPIRY_GRACE = 120
_WITHOUT_LOG = (Status.STARTING, Status.CREATE_FAILED)


def start(caller: Caller, job_id: str, request: StartRequest) -> JobAnswer:
    """Accepts a start and sends it to the nodes. Raises JobNotFound, Forbidden, InvalidRequest.

    Targets on nodes that no worker announced are accepted as failed; the others run.
    """
    jobs.checked(job_id)
    nodes = store.nodes.get_nodes({target.NodeId for target in request.Target})
    oldest = time.time() - settings.retention

    def make(job: Job) -> tuple[Execution, AuditEntry]:
        jobs.seen(caller, job)
        caller.require_root(job.Privileged, job.User)
        check_command(job.Cmd)  # it may have been saved when other rules held
        execution = _execution(caller, job, request, nodes)
        what = {"ExecutorId": execution.ExecutorId, "Targets": len(execution.Target)}
        return execution, audit.of_job(caller, Action.START_JOB, job, **what)

    job, execution = store.executions.start_job(job_id, make, oldest)
    try:
        send(execution, execution.Target, nodes)
    except (
        Exception
    ):  # accepted all the same: upkeep sends again; an error would invite a second start
        logger.exception("messages not sent", job_id=job_id, executor_id=execution.ExecutorId)
    return _show_last(caller, job, execution)


def send(execution: Execution, targets: Iterable[dict[str, str]], nodes: dict[str, Node]) -> None:
    """Sends the messages of those targets whose node is known. Raises where SQS does not take all."""
    queues.send(
        (
            nodes[target["NodeId"]].QueueUrl,
            TargetMessage(
                execution.JobId, execution.ExecutorId, target["ContainerId"], execution.AppName
            ),
        )
        for target in targets
        if target["NodeId"] in nodes
    )


def _execution(
    caller: Caller, job: Job, request: StartRequest, nodes: dict[str, Node]
) -> Execution:
    targets = [
        {"ContainerId": target.ContainerId, "NodeId": target.NodeId} for target in request.Target
    ]
    now = time.time()
    execution = Execution(
        job.JobId,
        _next_executor_id(job, now),
        Target=targets,
        UnknownNodes=sorted({target.NodeId for target in request.Target} - nodes.keys()),
        MayRunAsRoot=caller.may_run_as_root,
        OwnContainersOnly=bool(caller.apps) or settings.own_containers_only,
        ExpiresAt=int(now + settings.retention),
        Open=OPEN,
    )
    for name in COMMAND:
        setattr(execution, name, getattr(job, name))
    return execution


def _next_executor_id(job: Job, now: float) -> str:
    """Now, but after every start and move that the job knows, whatever the clocks of others said."""
    known = [*job.Executors, *(last for _, last in job.Moves or [])]
    started = max((int(executor_id.replace(".", "")) for executor_id in known), default=0)
    microseconds = max(int(now * _SECOND), started + 1)
    return f"{microseconds // _SECOND}.{microseconds % _SECOND:06}"


def _show_last(caller: Caller, job: Job, execution: Execution) -> JobAnswer:
    """The job's answer to its start: of several starts at once, each is the last of its own answer."""
    answer = jobs.show(caller, job)
    answer.Executors = [started for started in answer.Executors if started <= execution.ExecutorId]
    return answer


def inspect(caller: Caller, job_id: str, executor_id: str) -> ExecutionAnswer:
    """What became of each target. Raises JobNotFound, ExecutionNotFound."""
    execution = _get(caller, job_id, executor_id)
    results = results_of(execution)
    answer = ExecutionAnswer(
        JobId=job_id,
        ExecutorId=executor_id,
        CreateTime=float(executor_id),
        Target=execution.Target,
        Result=[
            _show(target, result) for target, result in zip(execution.Target, results, strict=True)
        ],
        Total=len(results),
        Succeeded=sum(map(succeeded, results)),
        Failed=sum(map(failed, results)),
    )
    fit(answer)
    return answer


class Log(Struct):
    """A target's log: itself, unless it is a long one, and a link to it, if anything of it is stored."""

    filename: str
    content: bytes | None
    link: str = ""


def log(caller: Caller, job_id: str, executor_id: str, container_id: str) -> Log:
    """A target's log so far; for one that failed before it ran, the text of its `E`.

    Raises JobNotFound, ExecutionNotFound, ContainerNotFound.
    """
    execution = _get(caller, job_id, executor_id)
    target = next((t for t in execution.Target if t["ContainerId"] == container_id), None)
    if target is None:
        raise ContainerNotFound(container_id)
    result = result_of(
        execution, target, store.results.get_result(job_id, executor_id, container_id)
    )
    name = _filename(executor_id, container_id)
    key = logs.log_key(job_id, executor_id, container_id)
    # Of an incomplete output more may be stored than the result knows of.
    is_known = result.Status in TERMINAL and not result.OutputIncomplete
    if result.Status in _WITHOUT_LOG or (is_known and not result.OutputSize):
        return Log(name, (result.E or "").encode())
    is_long = is_known and result.OutputSize > DIRECT_BYTES
    content = None if is_long else logs.read(key, DIRECT_BYTES)
    if content == b"":
        # One that should be there is looked for behind its link: it must not be told to be empty.
        content = None if is_known else (result.E or "").encode()
    return Log(name, content, logs.link(key, name))


def _filename(executor_id: str, container_id: str) -> str:
    started = datetime.fromtimestamp(float(executor_id), UTC)
    return f"job-container-{container_id}-{started:%Y-%m-%d-%H:%M:%S}.log"


def _get(caller: Caller, job_id: str, executor_id: str) -> Execution:
    """The execution, if the caller sees its application; also of a job that is deleted or moved since."""
    jobs.checked(job_id)
    try:
        execution = _stored(job_id, executor_id)
    except ExecutionNotFound:
        # Who must not know of the job must not learn from this that it is there.
        jobs.seen(caller, store.jobs.get_job(job_id))
        raise
    if not caller.sees(execution.AppName):
        raise JobNotFound(job_id)
    return execution


def _stored(job_id: str, executor_id: str) -> Execution:
    if not _EXECUTOR_ID.fullmatch(executor_id):
        raise ExecutionNotFound(executor_id)
    execution = store.executions.get_execution(job_id, executor_id)
    # DynamoDB deletes what expired some days later, results and executions in any order.
    if execution.ExpiresAt < time.time():
        raise ExecutionNotFound(executor_id)
    return execution


def results_of(execution: Execution) -> list[Result]:
    """The results of all targets, in their order."""
    stored = store.results.get_results(execution.JobId, execution.ExecutorId)
    return [
        result_of(execution, target, stored.get(target["ContainerId"]))
        for target in execution.Target
    ]


def succeeded(result: Result) -> bool:
    """Whether the command ended with exit code 0."""
    return bool(result.Status == Status.FINISHED and result.Inspect["ExitCode"] == 0)


def failed(result: Result) -> bool:
    """Whether the target is over and did not succeed."""
    return result.Status in TERMINAL and not succeeded(result)


def result_of(execution: Execution, target: dict[str, str], stored: Result | None) -> Result:
    """The target's result: the stored one, or what follows from there being none."""
    if stored is not None:
        return stored
    result = Result(
        store.results.result_key(execution.JobId, execution.ExecutorId),
        target["ContainerId"],
        NodeId=target["NodeId"],
        Status=Status.STARTING,
        ExpiresAt=execution.ExpiresAt,
    )
    if target["NodeId"] in execution.UnknownNodes:
        result.Status, result.Reason = Status.CREATE_FAILED, Reason.NODE_UNKNOWN
        result.E = (
            f"no worker has announced node {target['NodeId']}; "
            "check the NodeId, and that a worker runs for this node"
        )
    elif time.time() > float(execution.ExecutorId) + settings.delivery_deadline + _EXPIRY_GRACE:
        result.Status, result.Reason = Status.CREATE_FAILED, Reason.EXPIRED
        result.E = expired_message(settings.delivery_deadline)
    return result


def _show(target: dict[str, str], result: Result) -> dict[str, Any]:
    """A result as the contract has it: the engine's own fields flat beside ours."""
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
    """The output without the rest of a character that its cut went through."""
    if not cut:
        return output
    return re.sub(rb"\A[\x80-\xbf]{1,3}", b"", output)
