"""A client of the API, for what `make run` does and shows."""

from typing import Any

import requests

from dev.errors import LocalError
from dev.tokens import bearer


class Api:
    """The HTTP API, as a client sees it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/jobs"
        self._headers = bearer(token)

    def jobs(self, app: str) -> list[dict[str, Any]]:
        return list(self._json("GET", "", params={"AppName": app}))

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        return dict(self._json("POST", "", json=job))

    def ensure(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job of that name in its application, or a new one."""
        found = [one for one in self.jobs(job["AppName"]) if one["Name"] == job["Name"]]
        return found[0] if found else self.create(job)

    def start(self, job_id: str, targets: list[dict[str, str]]) -> str:
        """Starts the job; returns the ExecutorId."""
        job = self._json("POST", f"/{job_id}/start", json={"Target": targets})
        return str(job["Executors"][-1])

    def inspect(self, job_id: str, executor_id: str) -> dict[str, Any]:
        return dict(self._json("GET", f"/{job_id}/inspect/{executor_id}"))

    def log(self, job_id: str, executor_id: str, container_id: str) -> str:
        path = f"/{job_id}/log/{executor_id}"
        content = self._call("GET", path, params={"ContainerId": container_id}).content
        return content.decode(errors="replace")

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._call(method, path, **options).json()

    def _call(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            answer = requests.request(
                method, self._url + path, headers=self._headers, timeout=30, **options
            )
        except requests.RequestException as error:
            raise LocalError(f"{method} {self._url}{path}: {error}") from None
        if not answer.ok:
            raise LocalError(f"{method} {answer.url}: {answer.status_code} {answer.text}")
        return answer
