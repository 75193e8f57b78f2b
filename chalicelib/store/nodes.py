"""Reads and writes of nodes."""

from collections.abc import Collection, Iterable

from chalicelib.store import unchanging
from chalicelib.store.models import Node


def announce(node: Node) -> None:
    """Says that a worker serves this node now. The last writer is right, so the put is unconditional."""
    node.save()


def get_nodes(node_ids: Iterable[str]) -> dict[str, Node]:
    """The nodes among these that a worker has announced, by NodeId.

    What a node announces again may be missing for a second. This costs half: a start on a thousand nodes
    reads them all. A node that was announced for the first time is there at once.
    """

    def read(missing: Collection[str], consistently: bool) -> dict[str, Node]:
        nodes = Node.batch_get(list(missing), consistent_read=consistently)
        return {node.NodeId: node for node in nodes}

    return unchanging.find_all(node_ids, read)
