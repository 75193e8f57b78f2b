"""Reads and writes of results: what became of each target."""

import time
from typing import Any

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition

from chalicelib.domain.states import Reason, Status, repeated_message, sources
from chalicelib.store.models import Result
from chalicelib.store.transactions import try_write


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
    return try_write(lambda: result.save(condition))
