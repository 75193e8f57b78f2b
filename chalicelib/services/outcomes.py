"""What became of each target: the stored result or, if there is none, what that means."""

import time
from collections.abc import Iterable

from chalicelib import store
from chalicelib.clients.sealing import mask, unpack
from chalicelib.config import settings
from chalicelib.domain.exec_inspect import Inspect, expect, restore
from chalicelib.domain.results import Failure, explain_expiry, explain_refusal
from chalicelib.domain.states import Status
from chalicelib.domain.targets import Target
from chalicelib.domain.words import split
from chalicelib.store.models import Execution, Result


def list_results(execution: Execution, targets: Iterable[Target]) -> list[Result]:
    """The results of the execution's targets, in their order."""
    wanted = list(targets)
    ids, parts = (execution.JobId, execution.ExecutorId), {target.part for target in wanted}
    stored = store.results.get_results(*ids, parts)
    return [
        stored.get((target.part, target.container_id)) or _derive(execution, target)
        for target in wanted
    ]


def restore_inspects(execution: Execution, results: list[Result]) -> list[Inspect]:
    """What the engine said of each exec that is over; nothing of the others."""
    # What does not split, by the rules of today, never ran.
    ran = any(result.Inspect for result in results)
    words = [*split(execution.Cmd), *map(mask, unpack(execution.Sealed))] if ran else []

    def restore_one(result: Result) -> Inspect:
        ids = (result.ID, result.ContainerId)
        expected = expect(*ids, words, execution.User, execution.Privileged)
        return restore(result.Inspect, expected)

    return [restore_one(result) if result.Inspect else {} for result in results]


def get_result(execution: Execution, target: Target) -> Result:
    """The result of one target."""
    ids = (execution.JobId, execution.ExecutorId, target.part, target.container_id)
    return store.results.get_result(*ids) or _derive(execution, target)


def _derive(execution: Execution, target: Target) -> Result:
    """The result of a target that nobody took up."""
    result = Result(
        store.results.result_key(execution.JobId, execution.ExecutorId, target.part),
        target.container_id,
        NodeId=target.node_id,
        Status=Status.STARTING,
        ExpiresAt=execution.ExpiresAt,
    )
    if failure := _failure(execution, target):
        result.Status, result.Reason, result.E = Status.CREATE_FAILED, *failure
    return result


def _failure(execution: Execution, target: Target) -> Failure | None:
    if target.refusal:
        return explain_refusal(target.node_id, target.refusal)
    return explain_expiry(
        time.time() - float(execution.ExecutorId), settings.delivery_deadline_seconds
    )
