"""Downloading a target's log."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import requests

from .backstage import Backstage, Node, finished
from .client import Api, Json, invalid, ok, refused, target, unique

# The longest log that is answered itself.
DIRECT_BYTES = 4 * 1024**2


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

    def download(self, status: int = 200, accept: str | None = "*/*") -> bytes:
        """The log as a browser gets it; `status` is that of the API's own answer."""
        path = f"/jobs/{self.id[0]}/log/{self.id[1]}"
        params = {"ContainerId": self.container}
        answer = self.api.send("GET", path, headers={"Accept": accept}, params=params)
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


@pytest.mark.parametrize("accept", [None, "*/*"])
def test_a_short_output_that_is_not_text(started: Started, accept: str | None) -> None:
    """The result has all of it; a caller that does not say what it accepts gets the link."""
    content = b"caf\xe9\n"
    attributes = finished(started.target, content)
    started.backstage.put_results(started.id, [(started.target, attributes)])
    started.backstage.put_log(started.id, started.container, content)
    assert started.download(200 if accept else 302, accept) == content


@pytest.mark.parametrize("accept", [None, "*/*"])
def test_a_short_text_is_answered_without_a_log(started: Started, accept: str | None) -> None:
    content = "café\n".encode()
    attributes = finished(started.target, content)
    started.backstage.put_results(started.id, [(started.target, attributes)])
    assert started.download(200, accept) == content


def test_nothing_yet(started: Started) -> None:
    assert started.download() == b""


@pytest.mark.parametrize("status", ["CREATED", "RUNNING"])
def test_under_way_without_output(started: Started, status: str) -> None:
    started.backstage.put_result(started.id, started.target, status, ID="e1")
    started.backstage.catch_up(started.id, started.container)
    assert started.download() == b""


def test_under_way(started: Started) -> None:
    started.backstage.put_result(started.id, started.target, "RUNNING", ID="e1")
    started.backstage.catch_up(started.id, started.container)
    started.backstage.put_segment(started.id, started.container, 0, b"so far\n")
    assert started.download() == b"so far\n"
    started.backstage.put_segment(started.id, started.container, 7, b"and more\n")
    assert started.download() == b"so far\nand more\n"
    long = b"x" * (DIRECT_BYTES + 1)
    started.backstage.put_segment(started.id, started.container, 0, long)
    started.backstage.put_log(started.id, started.container, long)
    assert started.download(302) == long


def test_under_way_without_a_worker(started: Started) -> None:
    """The first reader waits for the worker, but not for ever, and gets what there is."""
    started.backstage.put_result(started.id, started.target, "RUNNING", ID="e1")
    started.backstage.put_segment(started.id, started.container, 0, b"so far\n")
    assert started.download() == b"so far\n"
    assert started.backstage.wishes(started.id)["WatchedUntil"] > time.time()


def test_under_way_long_and_not_one_object(started: Started) -> None:
    """The answer says when to ask again; then the log may be ready."""
    long = b"y" * (DIRECT_BYTES + 1)
    started.backstage.put_result(started.id, started.target, "RUNNING", ID="e1")
    started.backstage.catch_up(started.id, started.container)
    started.backstage.put_segment(started.id, started.container, 0, long)
    answer = started.api.log(*started.id, started.container)
    refused(answer, 503, "log_not_ready", None)
    assert int(answer.headers["Retry-After"]) > 0
    ((container, _),) = json.loads(started.backstage.wishes(started.id)["Assemble"])
    assert container == started.container
    started.backstage.put_log(started.id, started.container, long)
    assert started.download(302) == long


def test_finished_without_output(started: Started) -> None:
    started.backstage.put_results(started.id, [(started.target, finished(started.target))])
    assert started.download() == b""


ACCEPTED = [None, "*/*", "application/json", "text/html,application/xhtml+xml;q=0.9"]
CONTENTS = {
    "text": ("输出\n".encode(), 200),
    "every byte": (bytes(range(256)) * (DIRECT_BYTES // 256), 200),
    "escapes": (b"\x1b" * DIRECT_BYTES, 200),
    "long": (b"\r\n\x00" * (DIRECT_BYTES // 3 + 1), 302),
    "9 MB": (b"\xff\n" * 4_500_000, 302),
}


@pytest.mark.parametrize("accept", ACCEPTED)
@pytest.mark.parametrize(("content", "status"), CONTENTS.values(), ids=CONTENTS.keys())
def test_finished_with_output(
    started: Started, content: bytes, status: int, accept: str | None
) -> None:
    """The whole log, though the result has only its end."""
    attributes = finished(started.target, content[-100:], size=len(content))
    started.backstage.put_results(started.id, [(started.target, attributes)])
    started.backstage.put_log(started.id, started.container, content)
    if accept is None and content not in CONTENTS["text"]:
        # Not text, or too long as text: a caller that does not say what it accepts gets the link.
        status = 302
    assert started.download(status, accept) == content


@pytest.mark.wide
@pytest.mark.parametrize("accept", ACCEPTED)
def test_a_long_inspect_is_text_whatever_is_accepted(
    api: Api, backstage: Backstage, node: Node, accept: str | None
) -> None:
    """In base64 it would be too long for Lambda."""
    targets = [target(node.node_id) for _ in range(300)]
    job_id = api.new_job()["JobId"]
    executor_id = api.new_execution(job_id, targets)
    output = b"\xe8\xbe\x93" * 10_000
    results = [(one, finished(one, output)) for one in targets]
    backstage.put_results((job_id, executor_id), results)
    path = f"/jobs/{job_id}/inspect/{executor_id}"
    answer = api.send("GET", path, headers={"Accept": accept})
    assert 4_700_000 < len(answer.content) < 5_000_000
    assert len(ok(answer)["Result"]) == 300


def test_incomplete_output_of_which_nothing_is_stored(started: Started) -> None:
    lost: Json = {"ID": "e1", "E": "it is lost", "Reason": "lost", "OutputIncomplete": True}
    started.backstage.put_result(started.id, started.target, "RUNNING_FAILED", **lost)
    assert started.download() == b"it is lost"


def test_the_log_by_head(started: Started) -> None:
    attributes = finished(started.target, b"output")
    started.backstage.put_results(started.id, [(started.target, attributes)])
    started.backstage.put_log(started.id, started.container, b"output")
    path = f"/jobs/{started.id[0]}/log/{started.id[1]}?ContainerId={started.container}"
    answer = started.api.send("HEAD", path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert started.filename() in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("error", ["没有这个容器", 'no "such" container\n'])
def test_create_failed(started: Started, error: str) -> None:
    started.backstage.put_result(
        started.id, started.target, "CREATE_FAILED", E=error, Reason="container_not_found"
    )
    assert started.download() == error.encode()


def test_unknown_node(api: Api, backstage: Backstage) -> None:
    started = Started(api, backstage, unique("node"))
    (result,) = api.execution(*started.id)["Result"]
    assert started.download() == result["E"].encode()


def test_running_failed_with_output(started: Started) -> None:
    failed: Json = {"ID": "e1", "E": "lost", "Reason": "lost", "Output": b"half", "OutputSize": 4}
    started.backstage.put_result(started.id, started.target, "RUNNING_FAILED", **failed)
    started.backstage.put_log(started.id, started.container, b"half")
    assert started.download() == b"half"


def test_each_target_has_its_own_log(api: Api, backstage: Backstage, node: Node) -> None:
    first, second = (Started(api, backstage, node.node_id) for _ in range(2))
    for started in (first, second):
        backstage.put_log(started.id, started.container, started.container.encode())
        attributes = finished(started.target, started.container.encode())
        backstage.put_results(started.id, [(started.target, attributes)])
    assert first.download() == first.container.encode()
    assert second.download() == second.container.encode()
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
