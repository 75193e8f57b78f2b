"""Looks after open executions: fails what nobody will ever end, and closes what is over.

Each write is conditional, so it may run twice at once, die anywhere, and race with workers.
"""

import time

import structlog

from chalicelib import store
from chalicelib.models import Execution, Node, Result
from chalicelib.services import executions
from chalicelib.states import TERMINAL, Reason, Status

log = structlog.stdlib.get_logger(__name__)

# A node whose worker was silent for so many seconds is gone for good. Long beside an engine's memory of
# an exec (10 minutes): a worker that comes back later could not tell how the command ended either.
NODE_GONE = 3600


class UpkeepFailed(Exception):
    """Some executions could not be looked after; the next turn tries again."""


def turn() -> None:
    """Looks at each open execution once. Raises UpkeepFailed after all the others were looked at."""
    failures = 0
    for job_id, executor_id in store.open_executions():
        try:
            _look_after(store.get_execution(job_id, executor_id))
        except Exception:  # one broken execution must not keep the others open
            failures += 1
            log.exception("execution not kept up", job_id=job_id, executor_id=executor_id)
    if failures:
        raise UpkeepFailed(f"{failures} executions could not be looked after")


def _look_after(execution: Execution) -> None:
    stored = store.get_results(execution.JobId, execution.ExecutorId)
    results = [
        executions.result_of(execution, target, stored.get(target["ContainerId"]))
        for target in execution.Target
    ]
    settled = [_fail_expired(result) for result in results if result.Reason == Reason.EXPIRED]
    settled += _fail_on_gone_nodes([result for result in results if _under_way(result)])
    if all(settled) and all(result.Status in TERMINAL for result in results):
        _close(execution, results)


def _under_way(result: Result) -> bool:
    return result.Status in (Status.CREATED, Status.RUNNING)


def _fail_expired(result: Result) -> bool:
    """Makes it lasting that a target expired; False where a worker took it up after all."""
    return store.add_result(result)


def _fail_on_gone_nodes(results: list[Result]) -> list[bool]:
    """Fails those whose node is gone; says of each of these whether its worker had not ended it."""
    nodes = store.get_nodes({result.NodeId for result in results}) if results else {}
    return [_fail_lost(result) for result in results if _is_gone(nodes.get(result.NodeId))]


def _is_gone(node: Node | None) -> bool:
    return node is None or time.time() - node.Heartbeat > NODE_GONE


def _fail_lost(result: Result) -> bool:
    result.Status, result.Reason = Status.RUNNING_FAILED, Reason.LOST
    result.E = f"node {result.NodeId} has been silent for {NODE_GONE} s; how it ended is lost"
    result.EndTime = time.time()
    return store.move_result(result)


def _close(execution: Execution, results: list[Result]) -> None:
    succeeded = sum(_succeeded(result) for result in results)
    # A target that never ran has no end of its own.
    ended = max(float(result.EndTime or execution.ExecutorId) for result in results)
    if store.close_execution(execution, succeeded, len(results) - succeeded, ended):
        log.info("closed", job_id=execution.JobId, executor_id=execution.ExecutorId)


def _succeeded(result: Result) -> bool:
    return result.Status == Status.FINISHED and result.Inspect["ExitCode"] == 0
