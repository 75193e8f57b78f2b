"""Reads and writes of counts: which targets of each part of an execution are over.

They follow from the results. So whoever stores a result that is over counts it, and whoever finds one may
count it again: adding to a set twice changes nothing.
"""

from collections.abc import Iterable
from typing import Any

from pynamodb.expressions.update import Action

from chalicelib.domain.ends import Counted, End
from chalicelib.domain.ids import execution_key
from chalicelib.domain.targets import Part
from chalicelib.store.models import Counts, Execution

# (JobId, ExecutorId, Part)
PartKey = tuple[str, str, int]


def add_ends(
    job_id: str, executor_id: str, part: int, ends: Iterable[End], expires_at: float
) -> Counted:
    """Counts these ends of one part. Returns what is counted of the part from now on."""
    counts = Counts(execution_key(job_id, executor_id), part)
    # DynamoDB keeps no empty set.
    added: list[Action] = [
        attribute.add(numbers) for attribute, numbers in _numbers(ends) if numbers
    ]
    counts.update([*added, Counts.ExpiresAt.set(expires_at)])
    return _counted(counts)


def _numbers(ends: Iterable[End]) -> list[tuple[Any, set[float]]]:
    known = set(ends)
    return [
        (Counts.Succeeded, {end.position for end in known if end.succeeded}),
        (Counts.Failed, {end.position for end in known if not end.succeeded}),
        (Counts.EndTimes, {end.time for end in known if end.time is not None}),
    ]


def count_refused(execution: Execution, parts: Iterable[Part]) -> list[Counts]:
    """The counts to store with a new execution: no worker counts targets that their nodes cannot run."""
    key, expires_at = execution_key(execution.JobId, execution.ExecutorId), execution.ExpiresAt
    refused = {
        part.number: {target.position for target in part if target.refusal} for part in parts
    }
    return [
        Counts(key, part, Failed=positions, ExpiresAt=expires_at)
        for part, positions in refused.items()
        if positions
    ]


def get_counts(job_id: str, executor_id: str) -> dict[int, Counted]:
    """What is counted of each part of an execution; a part of which nothing is counted is not there."""
    found = Counts.query(execution_key(job_id, executor_id), consistent_read=True)
    return {int(counts.Part): _counted(counts) for counts in found}


def get_parts(parts: Iterable[PartKey]) -> dict[PartKey, Counted]:
    """What is counted of these parts, of any executions."""
    keys = {(execution_key(job_id, executor_id), part) for job_id, executor_id, part in parts}
    found = {}
    for counts in Counts.batch_get(list(keys), consistent_read=True):
        job_id, _, executor_id = counts.Execution.partition("/")
        found[job_id, executor_id, int(counts.Part)] = _counted(counts)
    return found


def _counted(counts: Counts) -> Counted:
    return Counted(
        frozenset(map(int, counts.Succeeded or ())),
        frozenset(map(int, counts.Failed or ())),
        max(counts.EndTimes or (), default=None),
    )
