"""Reads and writes of nodes."""

from collections.abc import Iterable

from chalicelib.store.models import Node


def announce(node: Node) -> None:
    """Says that a worker serves this node, now; the last to say so is right, hence no condition."""
    node.save()


def get_nodes(node_ids: Iterable[str]) -> dict[str, Node]:
    """Those of the nodes that a worker has announced, by NodeId."""
    return {node.NodeId: node for node in Node.batch_get(list(node_ids), consistent_read=True)}
