"""The client of the tests, and what plays the worker."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_api import ALLOWED_ORIGIN

from .backstage import Backstage, Node
from .client import Api

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and orders them (the hook gets the tests of all folders)."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.contract)
    # It reads everything in the tables, so it comes before the tests that fill them.
    items.sort(key=lambda item: item.path != HERE / "test_secrecy.py")


@pytest.fixture(scope="session")
def api(api_url: str, token: str) -> Api:
    """The API, to a caller who may do everything; with `APPJOBS_API_HOST` if a gateway needs it."""
    headers = {"Authorization": f"Bearer {token}"}
    if host := os.environ.get("APPJOBS_API_HOST"):
        headers["Host"] = host
    return Api(api_url, headers)


@pytest.fixture(scope="session")
def backstage(aws: Any) -> Backstage:
    """AWS behind the API."""
    return Backstage(aws.endpoint, aws.environment)


@pytest.fixture
def announce(backstage: Backstage) -> Iterator[Callable[..., Node]]:
    """Makes announced nodes; they are gone after the test."""
    nodes: list[Node] = []

    def make(node_id: str | None = None, version: int = 1) -> Node:
        nodes.append(backstage.announce(node_id, version))
        return nodes[-1]

    yield make
    for node in nodes:
        backstage.forget(node)


@pytest.fixture
def node(announce: Callable[[], Node]) -> Node:
    """One announced node."""
    return announce()


@pytest.fixture(scope="session")
def allowed_origin() -> str:
    """An origin whose web pages may call the API. Another stack has its own in `CORS_ORIGINS`."""
    if "APPJOBS_API_URL" in os.environ and (given := os.environ.get("CORS_ORIGINS")):
        return given.split(",")[0].strip()
    return ALLOWED_ORIGIN
