"""A plain HTTP client of the API: for `make run`, and for the tests, which extend it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from dev.errors import LocalError


class Api:
    """The routes, one method for each. Every method returns the raw answer."""

    def __init__(
        self, base: str, headers: Mapping[str, str] | None = None, seconds: float = 30
    ) -> None:
        self.base = base
        self.headers = dict(headers or {})
        self._seconds = seconds

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        params: Mapping[str, str] | None = None,
        follow: bool = False,
    ) -> requests.Response:
        """Sends one request, its body as it is. It follows redirects only if `follow` says so.

        A header that is None is not sent.
        """
        with self._session() as session:
            return session.request(
                method,
                f"{self.base}/api{path}",
                data=data,
                params=params,
                headers={**self.headers, **(headers or {})},
                allow_redirects=follow,
                timeout=self._seconds,
            )

    def send_json(self, method: str, path: str, body: Any) -> requests.Response:
        """Sends one request with a JSON body."""
        data = json.dumps(body, ensure_ascii=False).encode()
        return self.send(method, path, data, {"Content-Type": "application/json"})

    def jobs(self, app: str | None = None, **page: Any) -> requests.Response:
        only: dict[str, Any] = {} if app is None else {"AppName": app}
        return self.send("GET", "/jobs", params=only | page)

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

    def history(self, job_id: str, **page: Any) -> requests.Response:
        return self.send("GET", f"/jobs/{job_id}/history", params=page)

    def log(
        self, job_id: str, executor_id: str, container_id: str | None = None, follow: bool = False
    ) -> requests.Response:
        params = None if container_id is None else {"ContainerId": container_id}
        path = f"/jobs/{job_id}/log/{executor_id}"
        return self.send("GET", path, params=params, follow=follow)

    def audit(self, **params: str) -> requests.Response:
        return self.send("GET", "/audit", params=params)

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A connection for one request."""
        with new_session() as session:
            yield session


def new_session() -> requests.Session:
    """A connection that takes nothing from the environment, such as a proxy."""
    session = requests.Session()
    session.trust_env = False
    return session


def answer_of(request: Callable[[], requests.Response]) -> requests.Response:
    """The answer to a request that must succeed. Raises LocalError."""
    try:
        answer = request()
    except requests.RequestException as error:
        raise LocalError(f"the API does not answer: {error}") from None
    if not answer.ok:
        sent = answer.request
        raise LocalError(f"{sent.method} {sent.url}: {answer.status_code} {answer.text}")
    return answer
