"""Reads and writes of executions; a start also appends to its job."""

from collections.abc import Callable, Iterator

import structlog
from pynamodb.exceptions import DoesNotExist, UpdateError
from pynamodb.expressions.update import Action

from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.store import jobs
from chalicelib.store.models import OPEN, AuditEntry, Execution, Job
from chalicelib.store.transactions import (
    CONDITION_FAILED,
    note,
    transaction,
    try_write,
    until_settled,
)

log = structlog.stdlib.get_logger(__name__)

# A job lists at most this many starts: one every four minutes of the default retention period. That
# keeps the item below half of what DynamoDB allows.
MAX_EXECUTORS = 10_000
# Starts are dropped from the list this many at a time: seldom, and within the limits of one update.
_PRUNED = 50
_LOST_RACES = (CONDITION_FAILED, "TransactionConflictException")


@until_settled
def start_job(
    job_id: str, decide: Callable[[Job], tuple[Execution, AuditEntry]], oldest: float
) -> tuple[Job, Execution]:
    """Stores an execution and appends it to its job, in one transaction.

    `decide` makes the execution and its audit entry, or raises. We call it again if another start took
    the ExecutorId, or if an edit came between: the execution has the job as it is at that moment.
    Starts before `oldest` (seconds) may drop out of the job's list. Returns the job with its new start,
    and the execution. Raises JobNotFound.
    """
    job = jobs.get_job(job_id)
    execution, entry = decide(job)
    started = [execution.ExecutorId]
    with transaction() as parts:
        parts.save(execution, Execution.ExecutorId.does_not_exist())
        note(parts, entry)
        append = Job.Executors.set(Job.Executors.append(started))
        parts.update(job, [append], Job.Revision == job.Revision)
    _prune(job, oldest)
    job.Executors = [*job.Executors, *started]
    return job, execution


def _prune(job: Job, oldest: float) -> None:
    """Drops starts from the front of the list, if it is still the list that we read."""
    surplus = len(job.Executors) - MAX_EXECUTORS
    expired = sum(float(executor_id) < oldest for executor_id in job.Executors)
    if max(surplus, expired) < _PRUNED:
        return
    # The list only grows at its end. So if the first start is the one that we read, the others are too.
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
    """Notes when an execution's messages were sent again, unless the execution is closed by now."""
    resent: list[Action] = [Execution.ResentTime.set(when)]
    try_write(lambda: execution.update(resent, Execution.Open.exists()))


def close_execution(execution: Execution, succeeded: int, failed: int, ended: float) -> bool:
    """Closes an execution whose results are all final. Returns False if another turn was first."""
    closing: list[Action] = [
        Execution.Total.set(succeeded + failed),
        Execution.Succeeded.set(succeeded),
        Execution.Failed.set(failed),
        Execution.EndTime.set(ended),
        Execution.Open.remove(),
    ]
    return try_write(lambda: execution.update(closing, Execution.Open.exists()))
