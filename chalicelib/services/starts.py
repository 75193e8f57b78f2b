"""Starts of jobs: what is accepted, and the messages of its targets."""

import time
from functools import cache

import structlog

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.access import Caller
from chalicelib.domain.ids import next_executor_id, parse_job_id
from chalicelib.domain.words import require_words
from chalicelib.schemas.executions import StartRequest
from chalicelib.schemas.jobs import JobAnswer
from chalicelib.services import audit, dispatch, jobs
from chalicelib.services.audit import Action
from chalicelib.store.models import COMMAND, OPEN, AuditEntry, Execution, Job, Node

log = structlog.stdlib.get_logger(__name__)


def start_job(caller: Caller, job_id: str, request: StartRequest) -> JobAnswer:
    """Accepts a start and sends it to the nodes. Raises JobNotFound, Forbidden, InvalidRequest.

    Targets on nodes that no worker announced are accepted as failed; the others run.
    """
    parse_job_id(job_id)

    # Read once, and only for a caller who may start the job.
    @cache
    def nodes() -> dict[str, Node]:
        return store.nodes.get_nodes({target.NodeId for target in request.Target})

    def decide(job: Job) -> tuple[Execution, AuditEntry]:
        caller.require_visible(job.JobId, job.AppName)
        caller.require_root(job.Privileged, job.User)
        require_words(job.Cmd)  # it may have been saved under other rules
        execution = _make_execution(caller, job, request, nodes())
        what = {"ExecutorId": execution.ExecutorId, "Targets": len(execution.Target)}
        return execution, audit.describe_job(caller, Action.START_JOB, job, **what)

    job, execution = store.executions.start_job(job_id, decide)
    try:
        dispatch.send_messages(execution, execution.Target, nodes())
    except (
        Exception
    ):  # The start is accepted, and upkeep sends again. An error would invite another start.
        log.exception("messages not sent", job_id=job_id, executor_id=execution.ExecutorId)
    return _show_last(caller, job, execution)


def _make_execution(
    caller: Caller, job: Job, request: StartRequest, nodes: dict[str, Node]
) -> Execution:
    targets = [
        {"ContainerId": target.ContainerId, "NodeId": target.NodeId} for target in request.Target
    ]
    now = time.time()
    # The start comes after every start and every move that the job knows.
    known = [*job.Executors, *(last for _, last in job.Moves or [])]
    execution = Execution(
        job.JobId,
        next_executor_id(known, now),
        Target=targets,
        By=caller.name,
        Total=len(targets),
        UnknownNodes=sorted({target.NodeId for target in request.Target} - nodes.keys()),
        MayRunAsRoot=caller.may_run_as_root,
        OwnContainersOnly=bool(caller.apps) or settings.own_containers_only,
        ExpiresAt=int(now + settings.retention_seconds),
        Open=OPEN,
    )
    for name in COMMAND:
        setattr(execution, name, getattr(job, name))
    return execution


def _show_last(caller: Caller, job: Job, execution: Execution) -> JobAnswer:
    """The answer to a start. Its last Executor is this start, even if others came at the same time."""
    answer = jobs.show_job(caller, job)
    answer.Executors = [started for started in answer.Executors if started <= execution.ExecutorId]
    return answer
