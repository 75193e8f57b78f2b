"""Logs as their readers get them."""

from typing import Any

import pytest

from chalicelib.clients import logs
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.errors import ContainerNotFound
from chalicelib.domain.states import Status
from chalicelib.services import downloads
from tests.support.builders import build_result
from tests.support.clock import Clock
from tests.unit.callers import ADMIN
from tests.unit.executions import only, start


def write(job_id: str, executor_id: str, status: Status, **fields: Any) -> None:
    """What a worker stores for the container c1."""
    build_result(job_id, executor_id, Status=status, **fields).save()


def test_a_log_is_named_after_container_and_start(job_id: str, clock: Clock) -> None:
    clock.now = 1_496_287_694.460088
    log = downloads.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c1")
    assert log.filename == "job-container-c1-2017-06-01-03:28:14.log"
    assert (log.link, log.content) == ("", b"")


def test_the_log_of_a_target_that_failed_before_it_ran_is_its_error(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"))
    log = downloads.read_log(ADMIN, job_id, executor_id, "c1")
    assert not log.link
    assert log.content == only(job_id, executor_id)["E"].encode()


def test_the_log_of_no_target_is_not_found(job_id: str) -> None:
    with pytest.raises(ContainerNotFound):
        downloads.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c2")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (Status.CREATED, {}),
        (Status.RUNNING, {}),
        # More than who adopted it knew of.
        (Status.FINISHED, {"OutputIncomplete": True, "OutputSize": 0}),
    ],
)
def test_a_command_has_a_log_once_some_is_stored(
    job_id: str, status: Status, fields: dict[str, Any]
) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, status, ID="e1", **fields)
    assert downloads.read_log(ADMIN, job_id, executor_id, "c1").content == b""
    put_log(job_id, executor_id, b"so far")
    assert downloads.read_log(ADMIN, job_id, executor_id, "c1").content == b"so far"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("more", "is_linked"), [(0, False), (1, True)])
def test_a_long_log_is_a_link(job_id: str, known: bool, more: int, is_linked: bool) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    size = downloads.DIRECT_BYTES + more
    fields = {"OutputSize": size} if known else {}
    write(job_id, executor_id, Status.FINISHED if known else Status.RUNNING, ID="e1", **fields)
    key = put_log(job_id, executor_id, b"\0" * size)
    log = downloads.read_log(ADMIN, job_id, executor_id, "c1")
    assert key in log.link
    assert log.content == (None if is_linked else b"\0" * size)


@pytest.mark.parametrize("output", [b"hi\n", b"\xff\0"])
def test_a_short_log_comes_from_the_result(job_id: str, output: bytes) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    fields = {"OutputSize": len(output), "Output": output}
    write(job_id, executor_id, Status.FINISHED, ID="e1", **fields)
    put_log(job_id, executor_id, b"what was there while it ran")
    assert downloads.read_log(ADMIN, job_id, executor_id, "c1").content == output


def test_a_log_that_is_gone_is_not_told_to_be_empty(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "n1"))
    write(job_id, executor_id, Status.FINISHED, ID="e1", OutputSize=7)
    assert downloads.read_log(ADMIN, job_id, executor_id, "c1").content is None


def put_log(job_id: str, executor_id: str, content: bytes) -> str:
    key = logs.log_key(job_id, executor_id, "c1")
    client("s3").put_object(Bucket=settings.log_bucket, Key=key, Body=content)
    return key
