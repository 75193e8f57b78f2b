"""Looks after open executions: sends lost messages again, fails what nobody will end, closes what
is over.

Each write is conditional. So upkeep may run twice at once, die anywhere, and race with workers.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.config import settings
from chalicelib.domain.ends import Counted
from chalicelib.domain.results import has_succeeded
from chalicelib.domain.states import TERMINAL, Reason, Status
from chalicelib.domain.targets import Target, in_order
from chalicelib.services import dispatch, outcomes
from chalicelib.store.models import Execution, Node, Result

log = structlog.stdlib.get_logger(__name__)

# If a node's worker was silent for this long, the node counts as gone. An engine remembers an exec only
# for 10 minutes: a worker that comes back later could not say how the command ended either.
NODE_GONE_SECONDS = 3600
# A target that was taken up has its message until its end. Only a deleted queue, or a command of more
# than 14 days, could lose it. So the message is sent again only this seldom.
_TAKEN_UP_RESEND_SECONDS = 3600
# If nobody took a target up within this part of the delivery deadline, its message may be lost.
_RESENDS = 5
_AT_ONCE = 16


class UpkeepFailed(Exception):
    """Some executions could not be looked after; the next turn tries again."""


def take_turn() -> None:
    """Looks at each open execution once. If some fail, looks at the others, then raises UpkeepFailed."""
    store.connect()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        failures = list(pool.map(_failed_to_look_after, store.executions.open_executions())).count(
            True
        )
    if failures:
        raise UpkeepFailed(f"{failures} executions could not be looked after")


def _failed_to_look_after(key: tuple[str, str]) -> bool:
    try:
        _look_after(store.executions.get_execution(*key))
    except Exception:  # one broken execution must not keep the others open
        log.exception("execution not looked after", job_id=key[0], executor_id=key[1])
        return True
    return False


def _look_after(execution: Execution) -> None:
    targets = in_order(store.targets.get_parts(execution))
    results = outcomes.list_results(execution, targets)
    settled = [_fail_expired(result) for result in results if result.Reason == Reason.EXPIRED]
    by_target = dict(zip(targets, results, strict=True))
    open_ones = {
        target: result for target, result in by_target.items() if result.Status not in TERMINAL
    }
    if open_ones:
        _bring_on(execution, open_ones)
    elif all(settled):
        _close(execution, results)


def _fail_expired(result: Result) -> bool:
    """Stores that a target expired. Returns False if a worker took the target up meanwhile."""
    return store.results.add_result(result)


def _bring_on(execution: Execution, results: dict[Target, Result]) -> None:
    """Fails the targets that ran on a node that is gone. Sends the others' messages again in time."""
    nodes = store.nodes.get_nodes({target.node_id for target in results})
    for result in results.values():
        if _is_taken_up(result) and _is_gone(nodes.get(result.NodeId), execution):
            _fail_lost(
                result,
                f"node {result.NodeId} has been silent for {NODE_GONE_SECONDS} s; how it ended is lost",
            )
    due = [target for target, result in results.items() if _is_due(execution, result)]
    idle = {
        node_id for node_id in {target.node_id for target in due} if _is_idle(nodes.get(node_id))
    }
    lost = [target for target in due if target.node_id in idle]
    if lost:
        log.info("sending again", job_id=execution.JobId, executor_id=execution.ExecutorId)
        dispatch.send_messages(execution, lost, nodes)
        store.executions.note_resent(execution, time.time())


def _is_taken_up(result: Result) -> bool:
    return result.Status in (Status.CREATED, Status.RUNNING)


def _is_due(execution: Execution, result: Result) -> bool:
    """Whether the target's message may be lost. A second one beside the first does no harm."""
    sent = execution.ResentTime or float(execution.ExecutorId)
    patience = (
        _TAKEN_UP_RESEND_SECONDS
        if _is_taken_up(result)
        else settings.delivery_deadline_seconds / _RESENDS
    )
    return result.Status not in TERMINAL and time.time() > sent + patience


def _is_idle(node: Node | None) -> bool:
    """Whether no message waits for the node. If some wait, more would only make its backlog longer."""
    return node is not None and queues.count_waiting(node.QueueUrl) == 0


def _is_gone(node: Node | None, execution: Execution) -> bool:
    # If the node is not in the table, it was there when the execution began: we count from then.
    seen = float(execution.ExecutorId) if node is None else node.Heartbeat
    return time.time() - seen > NODE_GONE_SECONDS


def _fail_lost(result: Result, message: str) -> None:
    result.Status, result.Reason, result.E = Status.RUNNING_FAILED, Reason.LOST, message
    result.EndTime = time.time()
    store.results.move_result(result)


def _close(execution: Execution, results: list[Result]) -> None:
    ends = [
        (position, has_succeeded(result.Status, result.Inspect))
        for position, result in enumerate(results)
    ]
    times = [result.EndTime for result in results if result.EndTime is not None]
    counted = Counted(
        frozenset(position for position, succeeded in ends if succeeded),
        frozenset(position for position, succeeded in ends if not succeeded),
        max(times, default=None),
    )
    if store.executions.close_execution(execution.JobId, execution.ExecutorId, counted):
        log.info("closed", job_id=execution.JobId, executor_id=execution.ExecutorId)


def end_dead_letter(body: str) -> None:
    """Ends the target of a message that failed too often. A target that nobody took up expires later."""
    target = queues.decode(body)
    if target is None:
        return
    result = store.results.get_result(*target.result_ids)
    if result is not None and _is_taken_up(result):
        log.error("dead letter", job_id=target.job_id, executor_id=target.executor_id)
        _fail_lost(
            result,
            f"its message failed {queues.MAX_RECEIVES} times; how it ended is lost: see the worker's log",
        )
