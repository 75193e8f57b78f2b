"""Downloading a target's log."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import requests

from .backstage import Backstage, Node, finished
from .client import Api, Json, invalid, refused, target, unique


class Started:
    """An execution of one target."""

    def __init__(self, api: Api, backstage: Backstage, node_id: str) -> None:
        self.api = api
        self.backstage = backstage
        self.target = target(node_id)
        self.container = self.target["ContainerId"]
        job_id = api.new_job()["JobId"]
        self.id = (job_id, api.new_execution(job_id, [self.target]))

    def filename(self) -> str:
        started = datetime.fromtimestamp(int(self.id[1].split(".")[0]), UTC)
        return f"job-container-{self.container}-{started:%Y-%m-%d-%H:%M:%S}.log"

    def download(self, status: int) -> bytes:
        """The log as a browser gets it; `status` is that of the API's own answer."""
        answer = self.api.log(*self.id, self.container)
        assert answer.status_code == status, answer.text[:2000]
        with _followed(answer) as final:
            assert final.status_code == 200, final.text[:2000]
            assert final.headers["Content-Type"] == "text/plain; charset=utf-8"
            disposition = f'attachment; filename="{self.filename()}"'
            assert final.headers["Content-Disposition"] == disposition
            return final.content


@contextmanager
def _followed(answer: requests.Response) -> Iterator[requests.Response]:
    if answer.status_code != 302:
        yield answer
        return
    with requests.Session() as session:
        session.trust_env = False
        yield session.get(answer.headers["Location"], timeout=60)


@pytest.fixture
def started(api: Api, backstage: Backstage, node: Node) -> Started:
    return Started(api, backstage, node.node_id)


def test_nothing_yet(started: Started) -> None:
    assert started.download(200) == b""


@pytest.mark.parametrize("status", ["CREATED", "RUNNING"])
def test_under_way_without_output(started: Started, status: str) -> None:
    started.backstage.put_result(started.id, started.target, status, ID="e1")
    assert started.download(200) == b""


def test_under_way(started: Started) -> None:
    started.backstage.put_result(started.id, started.target, "RUNNING", ID="e1")
    started.backstage.put_log(started.id, started.container, b"so far\n")
    assert started.download(302) == b"so far\n"
    started.backstage.put_log(started.id, started.container, b"so far\nand more\n")
    assert started.download(302) == b"so far\nand more\n"


def test_finished_without_output(started: Started) -> None:
    started.backstage.put_results(started.id, [(started.target, finished(started.target))])
    assert started.download(200) == b""


@pytest.mark.parametrize(
    "content",
    ["输出\n".encode(), bytes(range(256)), b"\r\n\x00" * 3_000_000],
    ids=["text", "every byte", "9 MB"],
)
def test_finished_with_output(started: Started, content: bytes) -> None:
    """The whole log, though the result holds its end alone."""
    attributes = finished(started.target, content[-100:], size=len(content))
    started.backstage.put_results(started.id, [(started.target, attributes)])
    started.backstage.put_log(started.id, started.container, content)
    assert started.download(302) == content


@pytest.mark.parametrize("error", ["没有这个容器", 'no "such" container\n'])
def test_create_failed(started: Started, error: str) -> None:
    started.backstage.put_result(
        started.id, started.target, "CREATE_FAILED", E=error, Reason="container_not_found"
    )
    assert started.download(200) == error.encode()


def test_unknown_node(api: Api, backstage: Backstage) -> None:
    started = Started(api, backstage, unique("node"))
    (result,) = api.execution(*started.id)["Result"]
    assert started.download(200) == result["E"].encode()


def test_running_failed_with_output(started: Started) -> None:
    failed: Json = {"ID": "e1", "E": "lost", "Reason": "lost", "Output": b"half", "OutputSize": 4}
    started.backstage.put_result(started.id, started.target, "RUNNING_FAILED", **failed)
    started.backstage.put_log(started.id, started.container, b"half")
    assert started.download(302) == b"half"


def test_each_target_has_its_own_log(api: Api, backstage: Backstage, node: Node) -> None:
    first, second = (Started(api, backstage, node.node_id) for _ in range(2))
    for started in (first, second):
        backstage.put_log(started.id, started.container, started.container.encode())
        attributes = finished(started.target, started.container.encode())
        backstage.put_results(started.id, [(started.target, attributes)])
    assert first.download(302) == first.container.encode()
    assert second.download(302) == second.container.encode()
    answer = api.log(*first.id, second.container)
    refused(answer, 404, "container_id_not_found", second.container)


def test_missing_container_id(started: Started) -> None:
    invalid(started.api.log(*started.id), "ContainerId")


def test_empty_container_id(started: Started) -> None:
    answer = started.api.log(*started.id, "")
    if answer.status_code == 404:
        refused(answer, 404, "container_id_not_found", "")
    else:
        invalid(answer, "ContainerId")


def test_container_id_is_not_a_prefix(started: Started) -> None:
    short = started.container[:12]
    answer = started.api.log(*started.id, short)
    refused(answer, 404, "container_id_not_found", short)
