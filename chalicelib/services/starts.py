"""Starts of jobs: what is accepted, and the messages of its targets."""

import time
from functools import cache

import structlog

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.access import Caller
from chalicelib.domain.ids import next_executor_id, parse_job_id
from chalicelib.domain.states import Reason
from chalicelib.domain.targets import Part, Refusal, in_order, split_into_parts
from chalicelib.domain.versions import NEEDED_VERSION
from chalicelib.domain.words import require_words
from chalicelib.schemas.executions import StartRequest
from chalicelib.schemas.jobs import JobAnswer
from chalicelib.services import audit, dispatch, jobs, upkeep
from chalicelib.services.audit import Action
from chalicelib.store.executions import Start
from chalicelib.store.models import COMMAND, Execution, Job, Node

log = structlog.stdlib.get_logger(__name__)


def start_job(caller: Caller, job_id: str, request: StartRequest) -> JobAnswer:
    """Accepts a start and sends it to the nodes. Raises JobNotFound, Forbidden, InvalidRequest.

    Targets on nodes that no worker announced, or only one that is too old, are accepted as failed; the
    others run.
    """
    parse_job_id(job_id)

    # Read once, and only for a caller who may start the job.
    @cache
    def nodes() -> dict[str, Node]:
        return store.nodes.get_nodes({target.NodeId for target in request.Target})

    @cache
    def parts() -> list[Part]:
        return _split(request, nodes())

    def decide(job: Job) -> Start:
        caller.require_visible(job.JobId, job.AppName)
        caller.require_root(job.Privileged, job.User)
        require_words(job.Cmd)  # it may have been saved under other rules
        execution = _make_execution(caller, job)
        items = store.targets.place(execution, parts())
        counts = store.counts.count_refused(execution, parts())
        if all(target.refusal for target in in_order(parts())):
            _close(execution)
        what = {"ExecutorId": execution.ExecutorId, "Targets": execution.Total}
        entry = audit.describe_job(caller, Action.START_JOB, job, **what)
        return Start(execution, items, counts, entry)

    job, execution = store.executions.start_job(job_id, decide)
    _send_messages(execution, parts(), nodes())
    return _show_last(caller, job, execution)


def _send_messages(execution: Execution, parts: list[Part], nodes: dict[str, Node]) -> None:
    """Sends an accepted start to its nodes. If that fails, upkeep does it.

    An error would invite another start.
    """
    try:
        dispatch.send_messages(execution, in_order(parts), nodes)
    except Exception:
        ids = {"job_id": execution.JobId, "executor_id": execution.ExecutorId}
        log.exception("messages not sent", **ids)


def _split(request: StartRequest, nodes: dict[str, Node]) -> list[Part]:
    """The targets in parts, with the nodes that cannot run them."""
    targets = [(target.NodeId, target.ContainerId) for target in request.Target]
    refusals = {node_id: _refuse(nodes.get(node_id)) for node_id, _ in targets}
    refused = {node_id: why for node_id, why in refusals.items() if why}
    return split_into_parts(targets, refused)


def _refuse(node: Node | None) -> Refusal | None:
    """Why a node cannot run a target, if it cannot."""
    if node is None:
        return Refusal(Reason.NODE_UNKNOWN)
    version = int(node.Version)
    return None if version >= NEEDED_VERSION else Refusal(Reason.WORKER_OUTDATED, version)


def _close(execution: Execution) -> None:
    """Closes a new execution of which no target can run."""
    execution.Open = execution.DueTime = None
    execution.Succeeded, execution.Failed = 0, execution.Total
    execution.EndTime = float(execution.ExecutorId)


def _make_execution(caller: Caller, job: Job) -> Execution:
    now = time.time()
    # The start comes after every start and every move that the job knows.
    known = [*job.Executors, *(last for _, last in job.Moves or [])]
    execution = Execution(
        job.JobId,
        next_executor_id(known, now),
        By=caller.name,
        MayRunAsRoot=caller.may_run_as_root,
        OwnContainersOnly=bool(caller.apps) or settings.own_containers_only,
        ExpiresAt=int(now + settings.retention_seconds),
    )
    store.executions.make_due(execution, upkeep.first_look(execution))
    for name in COMMAND:
        setattr(execution, name, getattr(job, name))
    return execution


def _show_last(caller: Caller, job: Job, execution: Execution) -> JobAnswer:
    """The answer to a start. Its last Executor is this start, even if others came at the same time."""
    answer = jobs.show_job(caller, job)
    answer.Executors = [started for started in answer.Executors if started <= execution.ExecutorId]
    return answer
