"""Sends the messages of an execution's targets to their nodes."""

from collections.abc import Iterable

from chalicelib.clients import queues
from chalicelib.clients.queues import TargetMessage
from chalicelib.store.models import Execution, Node


def send_messages(
    execution: Execution, targets: Iterable[dict[str, str]], nodes: dict[str, Node]
) -> None:
    """Sends the messages of those targets whose node is known. Raises if SQS does not take all."""
    queues.send(
        (
            nodes[target["NodeId"]].QueueUrl,
            TargetMessage(
                execution.JobId, execution.ExecutorId, target["ContainerId"], execution.AppName
            ),
        )
        for target in targets
        if target["NodeId"] in nodes
    )
