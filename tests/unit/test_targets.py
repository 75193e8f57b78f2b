"""Targets in parts: small, a node's together, and put together again in the order of the request."""

import random

import pytest

from chalicelib import store
from chalicelib.domain.errors import ExecutionNotFound
from chalicelib.domain.targets import MOST_IN_PART, Refusal, in_order, split_into_parts
from chalicelib.store.models import Execution, TargetPart
from tests.support.builders import build_execution

SHUFFLED = random.Random(11)


def requested(nodes: int, on_each: int) -> list[tuple[str, str]]:
    """So many containers on each of so many nodes, in any order."""
    targets = [(f"n{node}", f"c{node}-{one}") for node in range(nodes) for one in range(on_each)]
    SHUFFLED.shuffle(targets)
    return targets


@pytest.mark.parametrize(
    ("nodes", "on_each"), [(1, 1), (32, 1), (33, 1), (1, 33), (1000, 1), (1, 1000), (30, 33)]
)
def test_parts_are_small_and_restore_the_request(nodes: int, on_each: int) -> None:
    targets = requested(nodes, on_each)
    parts = split_into_parts(targets, {})
    assert [part.number for part in parts] == list(range(-(-len(targets) // MOST_IN_PART)))
    assert all(len(part) <= MOST_IN_PART for part in parts)
    restored = in_order(parts)
    assert [(target.node_id, target.container_id) for target in restored] == targets
    assert [target.position for target in restored] == list(range(len(targets)))


def test_a_node_is_in_as_few_parts_as_possible_and_they_follow_each_other() -> None:
    parts = split_into_parts(requested(20, 50), {})
    for node in range(20):
        numbers = [part.number for part in parts if f"n{node}" in part.nodes]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len(numbers) <= 3


def test_a_part_finds_its_targets_and_no_other() -> None:
    parts = split_into_parts(requested(40, 1), {})
    for target in in_order(parts):
        assert parts[target.part].find(target.container_id) == target
        assert parts[1 - target.part].find(target.container_id) is None


def test_a_part_names_those_of_its_nodes_that_are_refused() -> None:
    parts = split_into_parts(
        requested(40, 1), {"n3": Refusal("node_unknown"), "n39": Refusal("node_unknown")}
    )
    assert {node for part in parts for node in part.refused} == {"n3", "n39"}
    assert all(part.refused.keys() <= part.nodes.keys() for part in parts)
    refused = [target.node_id for target in in_order(parts) if target.refusal]
    assert sorted(refused) == ["n3", "n39"]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("count", "items"), [(32, 0), (33, 2), (1000, 32)])
def test_what_is_stored_is_read_as_it_was(count: int, items: int) -> None:
    targets = requested(count, 1)
    execution = build_execution(targets=targets, refused=("n7",))
    execution.save()
    stored = Execution.get("j1", "1.000000")
    assert (stored.Total, stored.Parts) == (count, max(items, 1))
    assert len(list(TargetPart.scan())) == items
    parts = split_into_parts(targets, {"n7": Refusal("node_unknown")})
    assert store.targets.get_parts(stored) == parts
    for part in parts:
        assert store.targets.find_part(stored, part.number) == part
    assert store.targets.find_part(stored, len(parts)) is None


@pytest.mark.usefixtures("aws")
def test_an_execution_without_one_of_its_parts_has_expired() -> None:
    execution = build_execution(targets=requested(100, 1))
    TargetPart("j1/1.000000", 2).delete()
    assert store.targets.find_part(execution, 2) is None
    with pytest.raises(ExecutionNotFound):
        store.targets.get_parts(execution)
