"""Every read and write of DynamoDB. Each change of state is one conditional write or one transaction.

PynamoDB's errors end here: what a caller can act on becomes a domain error, all else is raised as it is.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import structlog
from pynamodb.attributes import Attribute
from pynamodb.exceptions import DoesNotExist, PutError, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.errors import ExecutionNotFound, JobNotFound, NameTaken
from chalicelib.domain.states import Reason, Status, repeated_message, sources
from chalicelib.models import OPEN, AuditEntry, Execution, Job, JobName, Node, Result
from chalicelib.transactions import Conflict, note, transaction, until_settled

log = structlog.stdlib.get_logger(__name__)

# The starts that a job lists at the most: one every four minutes of the default retention period. It
# bounds the item to half of what DynamoDB allows.
MAX_EXECUTORS = 10_000
# Starts are dropped from the list this many at a time: seldom, and within what one update may hold.
_PRUNED = 50
# DynamoDB refuses to look for a longer key, or an empty one. Not all emulators do: some find nothing.
_KEY_BYTES = 2048
_T = TypeVar("_T")
_CONDITION_FAILED = "ConditionalCheckFailedException"
_LOST_RACES = (_CONDITION_FAILED, "TransactionConflictException")


def connect() -> None:
    """Makes the clients of those tables that several threads are about to use.

    PynamoDB makes one when it is first needed: many threads at that moment make as many, of 10 MB each.
    """
    for model in (Execution, Result, Node):
        _ = model._get_connection().connection.client


# --- jobs ---------------------------------------------------------------------------------------


class _NameTaken(Exception):
    """The condition on a name did not hold."""


def get_job(job_id: str) -> Job:
    """The job as it stands now. Raises JobNotFound."""
    try:
        return Job.get(job_id, consistent_read=True)
    except DoesNotExist:
        raise JobNotFound(job_id) from None


def list_jobs(app_name: str | None) -> list[Job]:
    """All jobs, or those of one application, by AppName, then Name."""
    if app_name is not None and not 0 < len(app_name.encode()) <= _KEY_BYTES:
        return []
    jobs = Job.scan() if app_name is None else Job.by_app.query(app_name)
    return sorted(jobs, key=lambda job: (job.AppName, job.Name))


@until_settled
def create_job(job: Job, entry: AuditEntry) -> None:
    """Stores a new job and takes its name. Raises NameTaken."""
    try:
        with transaction(_NameTaken, Conflict, Conflict) as parts:
            parts.save(_name(job), JobName.JobId.does_not_exist())
            parts.save(job, Job.JobId.does_not_exist())
            note(parts, entry)
    except _NameTaken:
        raise NameTaken(job.Name) from None


@until_settled
def edit_job(job_id: str, edit: Callable[[Job], AuditEntry]) -> Job:
    """Changes a job by `edit`, which sets its attributes, and returns it. Moves its name if need be.

    `edit` says what the audit notes of it. It may be called again, with the job as it stands then, where
    another edit came between. Raises JobNotFound, NameTaken.
    """
    job = get_job(job_id)
    old, revision = _name(job), job.Revision
    entry = edit(job)
    job.Revision = revision + 1
    renamed = (old.AppName, old.Name) != (job.AppName, job.Name)
    failures = [Conflict, _NameTaken] if renamed else []
    try:
        with transaction(*failures, Conflict, Conflict) as parts:
            if renamed:
                parts.delete(old, JobName.JobId == job_id)
                parts.save(_name(job), JobName.JobId.does_not_exist())
            note(parts, entry)
            parts.update(job, _command_of(job), Job.Revision == revision)
    except _NameTaken:
        raise NameTaken(job.Name) from None
    return job


def _command_of(job: Job) -> list[Action]:
    """Update actions that set all but the Executors, which starts append to at any time."""
    actions: list[Action] = [
        Job.AppName.set(job.AppName),
        Job.Name.set(job.Name),
        Job.Cmd.set(job.Cmd),
        Job.Privileged.set(job.Privileged),
        Job.Env.set(job.Env),
        Job.Revision.set(job.Revision),
    ]
    return [
        *actions,
        _set_or_remove(Job.ServiceName, job.ServiceName),
        _set_or_remove(Job.User, job.User),
        _set_or_remove(Job.LogBytes, job.LogBytes),
        _set_or_remove(Job.Sealed, job.Sealed),
        _set_or_remove(Job.Moves, job.Moves),
    ]


def _set_or_remove(attribute: Attribute[_T], value: _T | None) -> Action:
    return attribute.set(value) if value else attribute.remove()


@until_settled
def delete_job(job_id: str, describe: Callable[[Job], AuditEntry]) -> None:
    """Deletes a job and frees its name; its executions stay.

    `describe` says what the audit notes of it, and may refuse. Raises JobNotFound.
    """
    job = get_job(job_id)
    entry = describe(job)
    with transaction(Conflict, Conflict, Conflict) as parts:
        parts.delete(_name(job), JobName.JobId == job_id)
        parts.delete(job, Job.Revision == job.Revision)
        note(parts, entry)


def _name(job: Job) -> JobName:
    return JobName(job.AppName, job.Name, JobId=job.JobId)


# --- executions ---------------------------------------------------------------------------------


@until_settled
def start_job(
    job_id: str, make: Callable[[Job], tuple[Execution, AuditEntry]], oldest: float
) -> tuple[Job, Execution]:
    """Stores the execution that `make` makes of the job, and appends it to the job, at once.

    `make` says what the audit notes of it, too. It may be called again where another start took its
    ExecutorId or an edit came between, so that the execution is the job as it stood at that moment.
    Starts before `oldest` (seconds) may drop out of the job's list. Returns the job with its new start.
    Raises JobNotFound.
    """
    job = get_job(job_id)
    execution, entry = make(job)
    started = [execution.ExecutorId]
    with transaction(Conflict, Conflict, Conflict) as parts:
        parts.save(execution, Execution.ExecutorId.does_not_exist())
        note(parts, entry)
        append = Job.Executors.set(Job.Executors.append(started))
        parts.update(job, [append], Job.Revision == job.Revision)
    _prune(job, oldest)
    job.Executors = [*job.Executors, *started]
    return job, execution


def _prune(job: Job, oldest: float) -> None:
    """Drops starts from the front of the list, where we still see the list that we read."""
    surplus = len(job.Executors) - MAX_EXECUTORS
    expired = sum(float(executor_id) < oldest for executor_id in job.Executors)
    if max(surplus, expired) < _PRUNED:
        return
    # The list only grows at its end: where its first is as we read it, so are the others.
    unchanged = Job.Executors[0] == job.Executors[0]
    try:
        Job(job.JobId).update([Job.Executors[i].remove() for i in range(_PRUNED)], unchanged)
    except UpdateError as error:
        # The start is stored. An overlong list harms nobody, and another start prunes it.
        if error.cause_response_code not in _LOST_RACES:
            log.warning("list of starts not pruned", job_id=job.JobId, exc_info=True)


def get_execution(job_id: str, executor_id: str) -> Execution:
    """One start of a job, also of a job deleted since. Raises ExecutionNotFound."""
    try:
        return Execution.get(job_id, executor_id, consistent_read=True)
    except DoesNotExist:
        raise ExecutionNotFound(executor_id) from None


def open_executions() -> Iterator[tuple[str, str]]:
    """(JobId, ExecutorId) of the executions that are not closed, the oldest first."""
    for execution in Execution.by_open.query(OPEN):
        yield execution.JobId, execution.ExecutorId


def note_resent(execution: Execution, when: float) -> None:
    """Remembers when an execution's messages were sent again. That is news only while it is open."""
    try:
        execution.update([Execution.ResentTime.set(when)], Execution.Open.exists())
    except UpdateError as error:
        if error.cause_response_code != _CONDITION_FAILED:
            raise


def close_execution(execution: Execution, succeeded: int, failed: int, ended: float) -> bool:
    """Closes an execution whose results are all final; False where another did before."""
    closing: list[Action] = [
        Execution.Total.set(succeeded + failed),
        Execution.Succeeded.set(succeeded),
        Execution.Failed.set(failed),
        Execution.EndTime.set(ended),
        Execution.Open.remove(),
    ]
    try:
        execution.update(closing, Execution.Open.exists())
    except UpdateError as error:
        if error.cause_response_code == _CONDITION_FAILED:
            return False
        raise
    return True


# --- results ------------------------------------------------------------------------------------


def result_key(job_id: str, executor_id: str) -> str:
    """The key under which an execution's results lie."""
    return f"{job_id}/{executor_id}"


def get_results(job_id: str, executor_id: str) -> dict[str, Result]:
    """The results of an execution, by ContainerId; targets that nobody took up have none."""
    results = Result.query(result_key(job_id, executor_id), consistent_read=True)
    return {result.ContainerId: result for result in results}


def get_result(job_id: str, executor_id: str, container_id: str) -> Result | None:
    """One target's result, None where nobody took it up."""
    try:
        return Result.get(result_key(job_id, executor_id), container_id, consistent_read=True)
    except DoesNotExist:
        return None


def add_result(result: Result) -> bool:
    """Stores a target's first result (`CREATED`, `CREATE_FAILED`); False where there is one already.

    An answer may get lost and the write be retried: what we wrote ourselves does not count as another's.
    """
    return _put(result, Result.Status.does_not_exist() | _is_same(result))


def take_container(result: Result, long_id: str) -> str:
    """Makes a target the only one of its container, whose long id it does not spell out.

    Returns the target that has the container: the result's own ContainerId, or the one that was first.
    What is written is the result of whoever spells the long id out: that target comes second.
    """
    second = Result(
        result.Execution,
        long_id,
        NodeId=result.NodeId,
        Status=Status.CREATE_FAILED,
        Reason=Reason.CONTAINER_REPEATED,
        E=repeated_message(result.ContainerId),
        TakenBy=result.ContainerId,
        EndTime=time.time(),
        ExpiresAt=result.ExpiresAt,
    )
    if _put(second, Result.Execution.does_not_exist()):
        return str(result.ContainerId)
    first = Result.get(result.Execution, long_id, consistent_read=True)
    return str(first.TakenBy or long_id)


def move_result(result: Result) -> bool:
    """Stores a result's next status; False where that is no longer this exec's to say."""
    legal = Result.Status.is_in(*sources(Status(result.Status)))
    return _put(result, (Result.ID == result.ID) & legal)


def _is_same(result: Result) -> Any:
    """What is stored is this very write: an exec has its ID, a failure without one its time."""
    same = Result.Status == result.Status
    if result.ID:
        return same & (Result.ID == result.ID)
    ended = Result.EndTime
    same_end = ended.does_not_exist() if result.EndTime is None else ended == result.EndTime
    return same & (Result.Reason == result.Reason) & same_end


def _put(result: Result, condition: Condition) -> bool:
    try:
        result.save(condition)
    except PutError as error:
        if error.cause_response_code == _CONDITION_FAILED:
            return False
        raise
    return True


# --- nodes --------------------------------------------------------------------------------------


def announce(node: Node) -> None:
    """Says that a worker serves this node, now; the last to say so is right, hence no condition."""
    node.save()


def get_nodes(node_ids: Iterable[str]) -> dict[str, Node]:
    """Those of the nodes that a worker has announced, by NodeId."""
    return {node.NodeId: node for node in Node.batch_get(list(node_ids), consistent_read=True)}
