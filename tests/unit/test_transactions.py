"""Each write of a transaction has its own failure, in whatever order the code adds them."""

from collections.abc import Iterable

import pytest
from pynamodb.exceptions import PutError, TransactWriteError
from pynamodb.models import Model

from chalicelib.store.models import JobName, Node
from chalicelib.store.transactions import Conflict, transaction, try_write
from tests.support.builders import build_node

pytestmark = pytest.mark.usefixtures("aws")

KINDS = ("delete", "save", "update")


class Failed(Exception):
    """What a part raises; it says which part."""


def node(name: str, holds: bool) -> Node:
    """A node, stored if the condition on it is to hold."""
    made = build_node(name)
    if holds:
        made.save()
    return made


def send(wanted: Iterable[tuple[str, Node, Exception | None]]) -> None:
    """Does each to an item that must be there."""
    exists = Node.NodeId.exists()
    with transaction() as writes:
        for kind, item, otherwise in wanted:
            if kind == "update":
                writes.update(item, [Node.Worker.set("new")], exists, otherwise)
            else:
                getattr(writes, kind)(item, exists, otherwise)


@pytest.mark.parametrize("fails", KINDS)
@pytest.mark.parametrize("order", [KINDS, KINDS[::-1], ("save", "delete", "update")], ids=str)
def test_a_write_raises_its_own_failure(fails: str, order: tuple[str, ...]) -> None:
    with pytest.raises(Failed, match=f"^{fails}$"):
        send((kind, node(kind, holds=kind != fails), Failed(kind)) for kind in order)


def test_a_write_without_a_failure_of_its_own_is_a_conflict() -> None:
    wanted = [("update", node("a", holds=True), Failed()), ("save", node("b", holds=False), None)]
    with pytest.raises(Conflict):
        send(wanted)
    assert Node.get("a").Worker == "w"


def test_the_first_write_that_fails_decides() -> None:
    wanted = [("save", node("a", holds=False), Failed()), ("delete", node("b", holds=False), None)]
    with pytest.raises(Conflict):
        send(wanted)


def test_if_all_conditions_hold_all_is_written() -> None:
    send((kind, node(kind, holds=True), Failed(kind)) for kind in KINDS)
    assert {found.NodeId: found.Worker for found in Node.scan()} == {"save": "w", "update": "new"}


def test_a_transaction_that_fails_as_a_whole_is_raised_as_it_is() -> None:
    JobName.delete_table()
    with pytest.raises(TransactWriteError), transaction() as writes:
        writes.save(JobName("a", "n", JobId="j"), JobName.JobId.does_not_exist())


def save(item: Model) -> bool:
    return try_write(lambda: item.save(Node.NodeId.does_not_exist()))


def test_a_single_write_says_whether_its_condition_held() -> None:
    assert save(node("n", holds=False))
    assert not save(node("n", holds=False))


def test_a_single_write_that_fails_otherwise_is_raised() -> None:
    Node.delete_table()
    with pytest.raises(PutError):
        save(node("n", holds=False))
