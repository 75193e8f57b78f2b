"""Reads and writes of executions; a start also appends to its job."""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.ends import Counted
from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.ids import execution_key
from chalicelib.store import jobs, unchanging
from chalicelib.store.models import SHARDS, AuditEntry, Counts, Execution, Job, TargetPart
from chalicelib.store.transactions import Writes, note, transaction, try_write, until_settled

# (JobId, ExecutorId)
Key = tuple[str, str]

# A job lists at most this many starts, the newest. The others are in its history.
LISTED_EXECUTORS = 100
# The item's list grows up to here, then it is cut to the newest. A start that cuts needs the list as it
# read it, and tries again if another start came between. Starts that append do not disturb each other.
_MOST_EXECUTORS = 150
# What a history shows of an execution, and what says who may see it.
_SUMMARY = [
    "JobId",
    "ExecutorId",
    "AppName",
    "By",
    "Total",
    "Succeeded",
    "Failed",
    "EndTime",
    "ExpiresAt",
]
# What says whether an execution is over.
_CLOSING = ["JobId", "ExecutorId", "Total", "Parts", "Open"]


class Due(NamedTuple):
    """An execution that upkeep has to look at since some time."""

    job_id: str
    executor_id: str
    time: float


class Start(NamedTuple):
    """What a start stores, beside its place in the job's list."""

    execution: Execution
    # The execution's targets, if they are too many for its own item.
    parts: list[TargetPart]
    # Those of its targets that are over already, because their nodes cannot run them.
    counts: list[Counts]
    entry: AuditEntry


@until_settled
def start_job(job_id: str, decide: Callable[[Job], Start]) -> tuple[Job, Execution]:
    """Stores an execution with all its targets and appends it to its job, in one transaction.

    `decide` makes what is stored, or raises. We call it again if another start took the ExecutorId, or
    if an edit came between: the execution has the job as it is at that moment.
    Returns the job with its new start, and the execution. Raises JobNotFound.
    """
    job = jobs.get_job(job_id)
    execution, parts, counts, entry = decide(job)
    with transaction() as writes:
        writes.save(execution, Execution.ExecutorId.does_not_exist())
        for part in parts:
            writes.save(part, TargetPart.Part.does_not_exist())
        for counted in counts:
            writes.save(counted, Counts.Part.does_not_exist())
        note(writes, entry)
        _list_start(writes, job, execution.ExecutorId)
    job.Executors = [*job.Executors, execution.ExecutorId]
    return job, execution


def _list_start(writes: Writes, job: Job, executor_id: str) -> None:
    """Appends to the job's list, or cuts it to the newest if it is full: it never grows beyond that."""
    listed = job.Executors
    as_read = Job.Revision == job.Revision
    if len(listed) < _MOST_EXECUTORS:
        longer = Job.Executors.set(Job.Executors.append([executor_id]))
        writes.update(job, [longer], as_read & Job.Executors[_MOST_EXECUTORS - 1].does_not_exist())
    else:
        newest = sorted([*listed, executor_id])[-LISTED_EXECUTORS:]
        # No id comes twice. So if the last one is where it was, no other start cut the list meanwhile.
        last = len(listed) - 1
        unchanged = (Job.Executors[last] == listed[last]) & Job.Executors[last + 1].does_not_exist()
        writes.update(job, [Job.Executors.set(newest)], as_read & unchanged)


def get_execution(job_id: str, executor_id: str) -> Execution:
    """One start of a job, also of a job deleted since. Raises ExecutionNotFound.

    That it was closed may be missing for a second. All else never changes after the start.
    """
    if execution := unchanging.find(Execution, job_id, executor_id):
        return execution
    raise ExecutionNotFound(executor_id)


def list_newest(job_id: str, before: str | None, page_size: int) -> Iterator[Execution]:
    """The executions of a job, the newest first, without their targets; all, or those before one.

    They come in pages of that size, and only as far as they are read.
    """
    earlier = None if before is None else Execution.ExecutorId < before
    yield from Execution.query(
        job_id,
        earlier,
        consistent_read=True,
        scan_index_forward=False,
        page_size=page_size,
        attributes_to_get=_SUMMARY,
    )


def make_due(execution: Execution, when: float) -> None:
    """Opens a new execution: upkeep looks at it from this time on."""
    key = execution_key(execution.JobId, execution.ExecutorId)
    execution.Open = str(zlib.crc32(key.encode()) % SHARDS)
    execution.DueTime = when


def list_due(now: float) -> Iterator[Due]:
    """The executions that upkeep has to look at. Turns that overlap begin with different shards."""
    for shard in random.sample(range(SHARDS), SHARDS):
        for one in Execution.by_due.query(str(shard), Execution.DueTime <= now):
            yield Due(one.JobId, one.ExecutorId, one.DueTime)


def take(due: Due, until: float) -> Execution | None:
    """Takes a due execution for the time until then: if nobody puts it off before, it is due again.

    Returns None if another turn took it, or if it is closed.
    """
    execution = Execution(due.job_id, due.executor_id)
    moved: list[Action] = [Execution.DueTime.set(until)]
    is_due = Execution.DueTime == due.time
    return execution if try_write(lambda: execution.update(moved, is_due)) else None


def put_off(execution: Execution, due: float, resent: float | None) -> None:
    """Says when upkeep has to look again at an execution that it took, and when it last sent messages.

    Does nothing if the execution is closed by now, or if another turn took it.
    """
    is_ours = Execution.DueTime == execution.DueTime
    actions: list[Action] = [Execution.DueTime.set(due)]
    if resent is not None:
        actions.append(Execution.ResentTime.set(resent))
    try_write(lambda: _update(execution.JobId, execution.ExecutorId, actions, is_ours))


def get_open(keys: Iterable[Key]) -> dict[Key, Execution]:
    """Those of the executions that are not closed, with nothing but what closing them needs."""
    found = Execution.batch_get(list(keys), consistent_read=True, attributes_to_get=_CLOSING)
    return {(one.JobId, one.ExecutorId): one for one in found if one.Open}


def close_execution(job_id: str, executor_id: str, counted: Counted) -> bool:
    """Closes an execution whose targets are all counted. Returns False if it is closed already."""
    # If none of its targets ran, it ended as it began.
    ended = float(executor_id) if counted.end_time is None else counted.end_time
    actions: list[Action] = [
        Execution.Succeeded.set(len(counted.succeeded)),
        Execution.Failed.set(len(counted.failed)),
        Execution.EndTime.set(ended),
        Execution.Open.remove(),
        Execution.DueTime.remove(),
    ]
    is_open = Execution.Open.exists()
    return try_write(lambda: _update(job_id, executor_id, actions, is_open))


def _update(job_id: str, executor_id: str, actions: list[Action], condition: Condition) -> None:
    """Updates an item without having it in the answer: that would be most of the work."""
    connection = Execution._get_connection()
    connection.update_item(job_id, executor_id, actions=actions, condition=condition)
