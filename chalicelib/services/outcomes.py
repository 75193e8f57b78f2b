"""What became of each target: the stored result or, if there is none, what that means."""

import time

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.results import Failure, explain_expiry, explain_unknown_node
from chalicelib.domain.states import Status
from chalicelib.store.models import Execution, Result


def list_results(execution: Execution) -> list[Result]:
    """The results of all targets, in their order."""
    stored = store.results.get_results(execution.JobId, execution.ExecutorId)
    return [
        stored.get(target["ContainerId"]) or _derive(execution, target)
        for target in execution.Target
    ]


def get_result(execution: Execution, target: dict[str, str]) -> Result:
    """The result of one target."""
    ids = (execution.JobId, execution.ExecutorId, target["ContainerId"])
    return store.results.get_result(*ids) or _derive(execution, target)


def _derive(execution: Execution, target: dict[str, str]) -> Result:
    """The result of a target that nobody took up."""
    result = Result(
        store.results.result_key(execution.JobId, execution.ExecutorId),
        target["ContainerId"],
        NodeId=target["NodeId"],
        Status=Status.STARTING,
        ExpiresAt=execution.ExpiresAt,
    )
    if failure := _failure(execution, target["NodeId"]):
        result.Status, result.Reason, result.E = Status.CREATE_FAILED, *failure
    return result


def _failure(execution: Execution, node_id: str) -> Failure | None:
    if node_id in execution.UnknownNodes:
        return explain_unknown_node(node_id)
    return explain_expiry(
        time.time() - float(execution.ExecutorId), settings.delivery_deadline_seconds
    )
