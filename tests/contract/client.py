"""A plain HTTP client of the API and what the tests say about its answers."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import requests

from tests.support.job_fields import FULL_JOB

from . import conformance

Json = dict[str, Any]
A = TypeVar("A")
B = TypeVar("B")


class Api:
    """The routes, one method each; every method hands back the raw answer."""

    def __init__(self, base: str, headers: dict[str, str] | None = None) -> None:
        self.base = base
        self.headers = headers or {}
        self._threads = threading.local()

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        params: dict[str, str] | None = None,
    ) -> requests.Response:
        """One request, its body as it is; redirects are not followed. The answer is as documented.

        A header that is None is not sent.
        """
        with self._session() as session:
            response = session.request(
                method,
                f"{self.base}/api{path}",
                data=data,
                params=params,
                headers={**self.headers, **(headers or {})},
                allow_redirects=False,
                timeout=180,
            )
        conformance.check(path, response)
        return response

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A connection for one request; beside the main thread, this thread's own for all of them."""
        if threading.current_thread() is threading.main_thread():
            with _new_session() as session:
                yield session
            return
        if not hasattr(self._threads, "session"):
            self._threads.session = _new_session()
        yield self._threads.session

    def send_json(self, method: str, path: str, body: Any) -> requests.Response:
        """One request with a JSON body."""
        data = json.dumps(body, ensure_ascii=False).encode()
        return self.send(method, path, data, {"Content-Type": "application/json"})

    def jobs(self, app: str | None = None) -> requests.Response:
        return self.send("GET", "/jobs", params=None if app is None else {"AppName": app})

    def create(self, body: Any) -> requests.Response:
        return self.send_json("POST", "/jobs", body)

    def get(self, job_id: str) -> requests.Response:
        return self.send("GET", f"/jobs/{job_id}")

    def put(self, job_id: str, body: Any) -> requests.Response:
        return self.send_json("PUT", f"/jobs/{job_id}", body)

    def delete(self, job_id: str) -> requests.Response:
        return self.send("DELETE", f"/jobs/{job_id}")

    def start(self, job_id: str, targets: Any) -> requests.Response:
        return self.send_json("POST", f"/jobs/{job_id}/start", {"Target": targets})

    def inspect(self, job_id: str, executor_id: str) -> requests.Response:
        return self.send("GET", f"/jobs/{job_id}/inspect/{executor_id}")

    def log(
        self, job_id: str, executor_id: str, container_id: str | None = None
    ) -> requests.Response:
        params = None if container_id is None else {"ContainerId": container_id}
        return self.send("GET", f"/jobs/{job_id}/log/{executor_id}", params=params)

    def audit(self, **params: str) -> requests.Response:
        return self.send("GET", "/audit", params=params)

    def new_job(self, **changes: Any) -> Json:
        """A job that was just created, alone in its application unless `changes` say otherwise."""
        return dict(ok(self.create(fields(**changes))))

    def new_execution(self, job_id: str, targets: list[Json]) -> str:
        """The ExecutorId of a start."""
        return str(ok(self.start(job_id, targets))["Executors"][-1])

    def job(self, job_id: str) -> Json:
        """The job as it stands."""
        return dict(ok(self.get(job_id)))

    def execution(self, job_id: str, executor_id: str) -> Json:
        """The execution as it stands."""
        return dict(ok(self.inspect(job_id, executor_id)))


def _new_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def unique(prefix: str = "app") -> str:
    """A value that no other test has."""
    return f"{prefix}-{uuid4().hex}"


def container() -> str:
    """A container id as the engine makes them."""
    return uuid4().hex + uuid4().hex


def target(node_id: str) -> Json:
    """A target on that node, in a container of its own."""
    return {"ContainerId": container(), "NodeId": node_id}


def fields(**changes: Any) -> Json:
    """The fields of a job that is to be created."""
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
    """Asserts that the answer blames the client, in the contract's form or the gateway's."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:2000])
    body = json.loads(response.content.decode("utf-8"))
    if response.status_code not in (401, 403):
        assert set(body) >= {"id", "message"}, body
    assert "Traceback" not in response.text


def eventually(check: Callable[[], A], seconds: float = 10) -> A:
    """Repeats a check until it passes; the last failure is the test's.

    For what AWS settles a moment later (an index, a queue).
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def at_once(call: Callable[[A], B], items: Iterable[A], threads: int = 32) -> list[B]:
    """The answers to concurrent calls, in the order of the items."""
    at_most = int(os.environ.get("APPJOBS_TEST_THREADS", threads))
    with ThreadPoolExecutor(min(threads, at_most)) as pool:
        return list(pool.map(call, items))
