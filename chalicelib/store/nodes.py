"""Reads and writes of nodes."""

from collections.abc import Iterable

from chalicelib.store.models import Node


def announce(node: Node) -> None:
    """Says that a worker serves this node now. The last writer is right, so the put is unconditional."""
    node.save()


def get_nodes(node_ids: Iterable[str]) -> dict[str, Node]:
    """The nodes among these that a worker has announced, by NodeId."""
    return {node.NodeId: node for node in Node.batch_get(list(node_ids), consistent_read=True)}
