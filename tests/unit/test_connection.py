"""Reads that are made at once share one client, also if nothing was read before."""

import threading
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from botocore.session import Session

from chalicelib.store.connection import read_at_once
from chalicelib.store.models import Result

pytestmark = pytest.mark.usefixtures("aws")


@pytest.fixture
def clients() -> Iterator[list[str]]:
    """The services for which a client was made."""
    made = []
    make = Session.create_client

    def counted(session: Session, service: str, *args: object, **options: object) -> object:
        made.append(service)
        return make(session, service, *args, **options)

    with patch.object(Session, "create_client", counted):
        yield made


def test_reads_at_once_make_one_client(clients: list[str]) -> None:
    Result._connection = None
    together = threading.Barrier(8)

    def read(key: str) -> int:
        together.wait(10)
        return len(list(Result.query(key)))

    assert read_at_once(Result, read, [f"{number}" for number in range(8)]) == [0] * 8
    assert clients == ["dynamodb"]


def test_a_single_read_needs_no_thread() -> None:
    assert read_at_once(Result, lambda key: threading.current_thread(), [1]) == [
        threading.current_thread()
    ]
    assert read_at_once(Result, lambda key: key, []) == []
