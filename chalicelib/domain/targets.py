"""An execution's targets, in parts of some dozens: a worker reads only the part that has its own. Pure.

The parts never change after the start. A node's targets are in as few parts as possible, and these
follow each other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

MOST_IN_PART = 32

# The targets of each node: their positions and ContainerIds.
Nodes = dict[str, list[tuple[int, str]]]


class Refusal(NamedTuple):
    """Why a node cannot run its targets."""

    reason: str
    # The version of its worker; 0: there is none, or it announced none.
    version: int = 0


class Target(NamedTuple):
    """One container on one node."""

    # Its index in the request.
    position: int
    # The number of the part that has it.
    part: int
    node_id: str
    container_id: str
    # Why its node cannot run it, if it cannot.
    refusal: Refusal | None


@dataclass(frozen=True)
class Part:
    """Some of an execution's targets. `refused`: which of their nodes cannot run it, and why."""

    number: int
    nodes: Nodes
    refused: Mapping[str, Refusal]

    def __iter__(self) -> Iterator[Target]:
        for node_id, targets in self.nodes.items():
            refusal = self.refused.get(node_id)
            for position, container_id in targets:
                yield Target(position, self.number, node_id, container_id, refusal)

    def __len__(self) -> int:
        return sum(map(len, self.nodes.values()))

    def find(self, container_id: str) -> Target | None:
        """The target with this ContainerId, or None if this part has none."""
        return next((target for target in self if target.container_id == container_id), None)


def part_size(number: int, total: int) -> int:
    """How many of so many targets a part has: all but the last are full."""
    return min(MOST_IN_PART, total - number * MOST_IN_PART)


def split_into_parts(
    requested: Iterable[tuple[str, str]], refused: Mapping[str, Refusal]
) -> list[Part]:
    """The parts of a request: (NodeId, ContainerId) of each target in order, and the refused nodes."""
    by_node = iter(
        sorted((node_id, position, id) for position, (node_id, id) in enumerate(requested))
    )
    parts: list[Part] = []
    while some := list(islice(by_node, MOST_IN_PART)):
        nodes: Nodes = defaultdict(list)
        for node_id, position, container_id in some:
            nodes[node_id].append((position, container_id))
        refused_here = {node_id: refused[node_id] for node_id in nodes if node_id in refused}
        parts.append(Part(len(parts), dict(nodes), refused_here))
    return parts


def in_order(parts: Iterable[Part]) -> list[Target]:
    """All targets of the parts, in the order of the request."""
    return sorted(target for part in parts for target in part)
