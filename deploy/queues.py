"""The nodes' queues of a deployed stack. A deployment brings them up to date, since no worker may."""

from typing import Any

from chalicelib.clients import queues


def bring_up_to_date(sqs: Any, outputs: dict[str, str]) -> None:
    """Gives all queues of nodes the settings that new ones get, and removes the policies of others."""
    wanted = {**queues.make_attributes(outputs["DeadLetterQueueArn"]), "Policy": ""}
    pages = sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=f"{outputs['AppjobsPrefix']}-node-", PaginationConfig={"PageSize": 1000}
    )
    for page in pages:
        for url in page.get("QueueUrls", []):
            sqs.set_queue_attributes(QueueUrl=url, Attributes=wanted)
