"""Reads and writes of results: what became of each target."""

import time
from collections.abc import Collection
from itertools import chain
from typing import Any

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition

from chalicelib.domain.ids import execution_key
from chalicelib.domain.states import Reason, Status, repeated_message, sources
from chalicelib.store.connection import read_at_once
from chalicelib.store.models import Result
from chalicelib.store.transactions import try_write


def result_key(job_id: str, executor_id: str, part: int) -> str:
    """The key of the results of one part of an execution's targets."""
    return f"{execution_key(job_id, executor_id)}/{part}"


def get_results(
    job_id: str, executor_id: str, parts: Collection[int]
) -> dict[tuple[int, str], Result]:
    """The results of these parts of an execution, by part and ContainerId.

    Targets that nobody took up have none. If there are several parts, what comes may be a second old:
    this costs half, and all parts together are not of one moment in any case.
    """

    def query(part: int) -> list[tuple[int, Result]]:
        key, is_alone = result_key(job_id, executor_id, part), len(parts) == 1
        return [(part, result) for result in Result.query(key, consistent_read=is_alone)]

    found = chain.from_iterable(read_at_once(Result, query, list(parts)))
    return {(part, result.ContainerId): result for part, result in found}


def get_result(job_id: str, executor_id: str, part: int, container_id: str) -> Result | None:
    """One target's result; None if nobody took it up."""
    key = result_key(job_id, executor_id, part)
    try:
        return Result.get(key, container_id, consistent_read=True)
    except DoesNotExist:
        return None


def add_result(result: Result) -> bool:
    """Stores a target's first result (`CREATED`, `CREATE_FAILED`). Returns False if there is one already.

    If the answer is lost, the write is tried again. Then the result of our own first try is not in our
    way.
    """
    return _put(result, Result.Status.does_not_exist() | _is_same(result))


def take_container(result: Result, key: str, long_id: str) -> str:
    """Makes the result's target the only one of its container. The target does not use the long id.

    For this, writes the result that a target with the long id would have, under the key of its part: from
    now on, that target would come second. Returns the target that has the container: the result's own, or
    the one that was first.
    """
    second = Result(
        key,
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
    first = Result.get(key, long_id, consistent_read=True)
    return str(first.TakenBy or long_id)


def move_result(result: Result) -> bool:
    """Stores a result's next status. Returns False if the stored result is over, or of another exec."""
    legal = Result.Status.is_in(*sources(Status(result.Status)))
    return _put(result, (Result.ID == result.ID) & legal)


def _is_same(result: Result) -> Any:
    """The condition that this very write stored the result. The exec's ID shows it, or the end time."""
    same = Result.Status == result.Status
    if result.ID:
        return same & (Result.ID == result.ID)
    ended = Result.EndTime
    same_end = ended.does_not_exist() if result.EndTime is None else ended == result.EndTime
    return same & (Result.Reason == result.Reason) & same_end


def _put(result: Result, condition: Condition) -> bool:
    return try_write(lambda: result.save(condition))
