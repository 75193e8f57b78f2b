"""Looks after open executions: sends lost messages again, fails what nobody will end, closes what
is over.

Each execution says when something can become necessary, and upkeep looks at it only then. Each write is
conditional, or counts what is counted already. So upkeep may run twice at once, die anywhere, and race
with workers.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.clients.queues import TargetMessage
from chalicelib.config import settings
from chalicelib.domain.ends import Counted, End, unite
from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.results import EXPIRY_GRACE_SECONDS, has_succeeded
from chalicelib.domain.states import TERMINAL, Reason, Status
from chalicelib.domain.targets import Target, part_size
from chalicelib.services import dispatch, outcomes, remains
from chalicelib.store.executions import Due
from chalicelib.store.models import Execution, Node, Result

log = structlog.stdlib.get_logger(__name__)

# If a node's worker was silent for this long, the node counts as gone. An engine remembers an exec only
# for 10 minutes: a worker that comes back later could not say how the command ended either.
NODE_GONE_SECONDS = 3600
# A target that was taken up has its message until its end. Only a deleted queue, or a command of more
# than 14 days, could lose it. So the message is sent again only when upkeep looks whether the node is
# gone. This is an hour after the node's last heartbeat, and a bit less than an hour after the last look.
_TAKEN_UP_RESEND_SECONDS = 3000
# If nobody took a target up within this part of the delivery deadline, its message may be lost.
_RESENDS = 5
# A look takes some seconds. If it fails or dies, another turn takes the execution after this time.
_TAKEN_SECONDS = 60
_AT_ONCE = 16
Nodes = Mapping[str, Node]


class UpkeepFailed(Exception):
    """Some executions could not be looked after; a turn in a minute tries again."""


def first_look(execution: Execution) -> float:
    """When upkeep has to look at a new execution for the first time."""
    return _created(execution) + _resend_seconds()


def take_turn() -> None:
    """Looks once at each execution that is due. If some fail, looks at the others, then raises.

    Raises UpkeepFailed.
    """
    store.connect()
    due = store.executions.list_due(time.time())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        failures = list(pool.map(_failed_to_look_after, due)).count(True)
    if failures:
        raise UpkeepFailed(f"{failures} executions could not be looked after")


def _failed_to_look_after(due: Due) -> bool:
    try:
        execution = store.executions.take(due, time.time() + _TAKEN_SECONDS)
        # Of what has expired, DynamoDB may have deleted the targets already; nobody sees it any more.
        if execution and time.time() < execution.ExpiresAt:
            _look_after(execution)
    except Exception:  # one broken execution must not keep the others open
        log.exception("execution not looked after", job_id=due.job_id, executor_id=due.executor_id)
        return True
    return False


def _look_after(execution: Execution) -> None:
    counts = store.counts.get_counts(execution.JobId, execution.ExecutorId)
    if _close_if_over(execution, counts):
        return
    uncounted = _find_uncounted(execution, counts)
    nodes = store.nodes.get_nodes({target.node_id for target in uncounted})
    ends = {
        target: end
        for target, result in uncounted.items()
        if (end := _find_end(execution, target, result, nodes.get(target.node_id)))
    }
    counts |= _count(execution, ends)
    if _close_if_over(execution, counts):
        return
    left = {target: result for target, result in uncounted.items() if target not in ends}
    resent = _send_again(execution, left, nodes)
    next_look = min(_next_look(execution, result, nodes) for result in left.values())
    store.executions.put_off(execution, next_look, resent)


def _close_if_over(execution: Execution, counts: Mapping[int, Counted]) -> bool:
    counted = unite(counts.values())
    if len(counted) < execution.Total:
        return False
    if store.executions.close_execution(execution.JobId, execution.ExecutorId, counted):
        log.info("closed", job_id=execution.JobId, executor_id=execution.ExecutorId)
    return True


def _find_uncounted(execution: Execution, counts: Mapping[int, Counted]) -> dict[Target, Result]:
    """The targets that are not counted, and what became of them. Reads no part that is complete."""
    counted = unite(counts.values())
    total = int(execution.Total)
    incomplete = [
        part
        for part in range(int(execution.Parts))
        if len(counts.get(part, ())) < part_size(part, total)
    ]
    parts = store.targets.get_parts(execution, incomplete)
    targets = [target for part in parts for target in part if target.position not in counted]
    return dict(zip(targets, outcomes.list_results(execution, targets), strict=True))


def _find_end(
    execution: Execution, target: Target, result: Result, node: Node | None
) -> End | None:
    """The stored end of a target; None if it is not over. Stores one if nobody else will."""
    if result.Reason == Reason.EXPIRED:
        is_stored = store.results.add_result(result)
    elif _is_taken_up(result) and time.time() > _seen(execution, node) + NODE_GONE_SECONDS:
        silent = f"node {result.NodeId} has been silent for {NODE_GONE_SECONDS} s"
        is_stored = _fail_lost(result, f"{silent}; how it ended is lost")
    else:
        # A worker that died after it had stored the end has not counted it.
        is_stored = result.Status in TERMINAL
    return _end_of(target, result) if is_stored else None


def _end_of(target: Target, result: Result) -> End:
    return End(target.position, has_succeeded(result.Status, result.Inspect), result.EndTime)


def _fail_lost(result: Result, message: str) -> bool:
    """Returns False if its worker, or somebody else, stored an end first."""
    result.Status, result.Reason, result.E = Status.RUNNING_FAILED, Reason.LOST, message
    remains.gather(result)
    result.EndTime = time.time()
    return store.results.move_result(result)


def _count(execution: Execution, ends: Mapping[Target, End]) -> dict[int, Counted]:
    """Counts these ends. Returns what is counted now of their parts."""
    by_part = defaultdict(list)
    for target, end in ends.items():
        by_part[target.part].append(end)
    ids = (execution.JobId, execution.ExecutorId)
    return {
        part: store.counts.add_ends(*ids, part, some, execution.ExpiresAt)
        for part, some in by_part.items()
    }


def _send_again(
    execution: Execution, results: Mapping[Target, Result], nodes: Nodes
) -> float | None:
    """Sends the messages again that may be lost. Returns when, or None if there are none."""
    due = [target for target, result in results.items() if _may_be_lost(execution, result)]
    idle = _find_idle({target.node_id for target in due}, nodes)
    lost = [target for target in due if target.node_id in idle]
    if not lost:
        return None
    log.info("sending again", job_id=execution.JobId, executor_id=execution.ExecutorId)
    dispatch.send_messages(execution, lost, nodes)
    return time.time()


def _find_idle(node_ids: Iterable[str], nodes: Nodes) -> set[str]:
    """The nodes for which no message waits. If some wait, more would only make a backlog longer."""
    return {
        node_id
        for node_id in node_ids
        if node_id in nodes and queues.count_waiting(nodes[node_id].QueueUrl) == 0
    }


def _may_be_lost(execution: Execution, result: Result) -> bool:
    """Whether the target's message may be lost. A second one beside the first does no harm."""
    patience = _TAKEN_UP_RESEND_SECONDS if _is_taken_up(result) else _resend_seconds()
    return time.time() >= _sent(execution) + patience


def _next_look(execution: Execution, result: Result, nodes: Nodes) -> float:
    """The earliest moment at which a target that is not over may need upkeep."""
    if _is_taken_up(result):
        return _seen(execution, nodes.get(result.NodeId)) + NODE_GONE_SECONDS
    last = time.time() if _may_be_lost(execution, result) else _sent(execution)
    deadline = _created(execution) + settings.delivery_deadline_seconds
    return min(last + _resend_seconds(), deadline + EXPIRY_GRACE_SECONDS)


def _is_taken_up(result: Result) -> bool:
    return result.Status in (Status.CREATED, Status.RUNNING)


def _created(execution: Execution) -> float:
    return float(execution.ExecutorId)


def _sent(execution: Execution) -> float:
    """When messages of the execution were sent last."""
    return execution.ResentTime or _created(execution)


def _seen(execution: Execution, node: Node | None) -> float:
    """When the node's worker was there last."""
    # If the node is not in the table, it was there when the execution began.
    return _created(execution) if node is None else node.Heartbeat


def _resend_seconds() -> float:
    return settings.delivery_deadline_seconds / _RESENDS


def end_dead_letter(body: str) -> None:
    """Ends the target of a message that failed too often. A target that nobody took up expires later."""
    message = queues.decode(body)
    if message is None:
        return
    result = store.results.get_result(*message.result_ids)
    if result is not None and _is_taken_up(result):
        log.error("dead letter", job_id=message.job_id, executor_id=message.executor_id)
        failed = f"its message failed {queues.MAX_RECEIVES} times"
        if not _fail_lost(result, f"{failed}; how it ended is lost: see the worker's log"):
            result = store.results.get_result(*message.result_ids)
    if result is not None and result.Status in TERMINAL:
        _count_dead_letter(message, result)


def _count_dead_letter(message: TargetMessage, result: Result) -> None:
    """Counts the end of a target whose message nobody gets any more, and says that it may be the last."""
    try:
        execution = store.executions.get_execution(message.job_id, message.executor_id)
    except ExecutionNotFound:
        return
    part = store.targets.find_part(execution, message.part)
    if target := part.find(message.container_id) if part else None:
        _count(execution, {target: _end_of(target, result)})
        queues.report_ended(message.job_id, message.executor_id)
