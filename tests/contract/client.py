"""The client of the contract tests, and what they say about its answers."""

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import requests

from dev.api import Api as Client
from dev.api import new_session
from tests.support.job_fields import FULL_JOB

from . import conformance

Json = dict[str, Any]
A = TypeVar("A")
B = TypeVar("B")


class Api(Client):
    """The API. It compares every answer with the OpenAPI document."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(base, headers, seconds=180)
        self._threads = threading.local()

    def send(self, method: str, path: str, *arguments: Any, **options: Any) -> requests.Response:
        response = super().send(method, path, *arguments, **options)
        conformance.check(path, response)
        return response

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A connection for one request. Other threads than the main one keep theirs for all requests."""
        if threading.current_thread() is threading.main_thread():
            with super()._session() as session:
                yield session
            return
        if not hasattr(self._threads, "session"):
            self._threads.session = new_session()
        yield self._threads.session

    def new_job(self, **changes: Any) -> Json:
        """A new job: the only one of its application, unless `changes` say otherwise."""
        return dict(ok(self.create(fields(**changes))))

    def new_execution(self, job_id: str, targets: list[Json]) -> str:
        """The ExecutorId of a start."""
        return str(ok(self.start(job_id, targets))["Executors"][-1])

    def job(self, job_id: str) -> Json:
        """The job as it is now."""
        return dict(ok(self.get(job_id)))

    def execution(self, job_id: str, executor_id: str) -> Json:
        """The execution as it is now."""
        return dict(ok(self.inspect(job_id, executor_id)))


def unique(prefix: str = "app") -> str:
    """A value that no other test has."""
    return f"{prefix}-{uuid4().hex}"


def container() -> str:
    """A container id as the engine makes them."""
    return uuid4().hex + uuid4().hex


def target(node_id: str) -> Json:
    """A target on that node, in a new container."""
    return {"ContainerId": container(), "NodeId": node_id}


def fields(**changes: Any) -> Json:
    """The fields of a job, for its creation."""
    return {**FULL_JOB, "AppName": unique(), **changes}


def least(**changes: Any) -> Json:
    """The required fields of a job and no others."""
    return {"AppName": unique(), "Name": "上线", "Cmd": "ps axu", **changes}


def ok(response: requests.Response) -> Any:
    """The JSON of an answer that must be a 200."""
    assert response.status_code == 200, (response.status_code, response.text[:2000])
    assert response.headers["Content-Type"].startswith("application/json")
    return json.loads(response.content.decode("utf-8"))


def refused(
    response: requests.Response, status: int, error: str, message: str | None = None
) -> str:
    """Asserts the error and returns its message."""
    assert response.status_code == status, (response.status_code, response.text[:2000])
    assert response.headers["Content-Type"].startswith("application/json")
    body = json.loads(response.content.decode("utf-8"))
    assert set(body) >= {"id", "message"}, body
    assert isinstance(body["message"], str)
    assert body["id"] == error, body
    if message is not None:
        assert body["message"] == message
    return str(body["message"])


def invalid(response: requests.Response, field: str | None = None) -> str:
    """Asserts a 400 `invalid_request` that names the field."""
    message = refused(response, 400, "invalid_request")
    assert message.strip()
    if field:
        assert field in message
    return message


def client_error(response: requests.Response) -> None:
    """Asserts that the answer is an error of the client, in the contract's form or the gateway's."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:2000])
    body = json.loads(response.content.decode("utf-8"))
    if response.status_code not in (401, 403):
        assert set(body) >= {"id", "message"}, body
    assert "Traceback" not in response.text


def at_once(call: Callable[[A], B], items: Iterable[A], threads: int = 32) -> list[B]:
    """The answers to concurrent calls, in the order of the items."""
    at_most = int(os.environ.get("APPJOBS_TEST_THREADS", threads))
    with ThreadPoolExecutor(min(threads, at_most)) as pool:
        return list(pool.map(call, items))
