"""Sends the messages of an execution's targets to their nodes."""

from collections.abc import Iterable, Mapping

from chalicelib.clients import queues
from chalicelib.clients.queues import TargetMessage
from chalicelib.domain.targets import Target
from chalicelib.store.models import Execution, Node


def send_messages(
    execution: Execution, targets: Iterable[Target], nodes: Mapping[str, Node]
) -> None:
    """Sends the messages of those targets that their nodes can run. Raises if SQS does not take all."""
    queues.send(
        (
            nodes[target.node_id].QueueUrl,
            TargetMessage(
                execution.JobId,
                execution.ExecutorId,
                target.container_id,
                execution.AppName,
                target.part,
            ),
        )
        for target in targets
        if not target.refusal
    )
