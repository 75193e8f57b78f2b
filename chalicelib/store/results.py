"""Reads and writes of results: what became of each target."""

import time
from typing import Any

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition

from chalicelib.domain.states import Reason, Status, repeated_message, sources
from chalicelib.store.models import Result
from chalicelib.store.transactions import try_write


def result_key(job_id: str, executor_id: str) -> str:
    """The key of an execution's results."""
    return f"{job_id}/{executor_id}"


def get_results(job_id: str, executor_id: str) -> dict[str, Result]:
    """The results of an execution, by ContainerId; targets that nobody took up have none."""
    results = Result.query(result_key(job_id, executor_id), consistent_read=True)
    return {result.ContainerId: result for result in results}


def get_result(job_id: str, executor_id: str, container_id: str) -> Result | None:
    """One target's result; None if nobody took it up."""
    try:
        return Result.get(result_key(job_id, executor_id), container_id, consistent_read=True)
    except DoesNotExist:
        return None


def add_result(result: Result) -> bool:
    """Stores a target's first result (`CREATED`, `CREATE_FAILED`). Returns False if there is one already.

    If the answer is lost, the write is tried again. Then the result of our own first try is not in our
    way.
    """
    return _put(result, Result.Status.does_not_exist() | _is_same(result))


def take_container(result: Result, long_id: str) -> str:
    """Makes the result's target the only one of its container. The target does not use the long id.

    For this, writes the result that a target with the long id would have: from now on, that target would
    come second. Returns the target that has the container: the result's own, or the one that was first.
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
