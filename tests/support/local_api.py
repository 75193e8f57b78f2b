"""The API as a process of the tests, on a free port."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.addresses import answers, free_port
from dev.children import Child, start_child
from dev.tokens import bearer, make_token
from dev.waiting import wait_for

ALLOWED_ORIGIN = "https://console.example"
_START_SECONDS = 60
_STOP_SECONDS = 10


def admin_token(environment: Mapping[str, str]) -> str:
    """A new token that may do everything on the stack of that environment."""
    return make_token(environment, "tests", "--role", "admin", "--root")


@contextmanager
def local_api(
    environment: Mapping[str, str], log: Path, token: str, module: Sequence[str] = ("dev.gateway",)
) -> Iterator[str]:
    """Runs the API until the end of the block; gives its URL."""
    with api_process(environment, log, token, module) as (_, url):
        yield url


@contextmanager
def api_process(
    environment: Mapping[str, str], log: Path, token: str, module: Sequence[str] = ("dev.gateway",)
) -> Iterator[tuple[Child, str]]:
    """The same, with the process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", *module, "--port", str(port)]
    api = start_child("api", command, {**environment, "CORS_ORIGINS": ALLOWED_ORIGIN}, log)
    try:
        jobs, headers = f"{url}/api/jobs", bearer(token)
        wait_for(lambda: answers(jobs, headers), _START_SECONDS, "the API", api)
        yield api, url
    finally:
        api.stop(_STOP_SECONDS)
