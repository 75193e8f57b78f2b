"""How large things get: none of them grows with how often a job was started."""

from typing import Any

import boto3
import msgspec
import pytest

from chalicelib import store
from chalicelib.config import settings
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import jobs, starts
from chalicelib.store.models import Job, TargetPart
from tests.support.builders import build_job, serve_node
from tests.support.costs import size_of_item
from tests.unit.callers import ADMIN

pytestmark = pytest.mark.usefixtures("aws", "clock")

KIB = 1024
# The newest starts of a job that was started 10,000 times: its list is as long as it gets.
AS_AFTER_MANY = [f"{number}.000000" for number in range(1_799_990_000, 1_799_990_148)]


def item_of(table: str, **key: str) -> dict[str, Any]:
    found = boto3.client("dynamodb").get_item(
        TableName=f"{settings.prefix}-{table}",
        Key={name: {"S": value} for name, value in key.items()},
    )
    return dict(found["Item"])


def test_a_job_after_ten_thousand_starts() -> None:
    serve_node()
    job_id = jobs.create_job(ADMIN, JobRequest(AppName="a", Name="n", Cmd="true")).JobId
    own = size_of_item(item_of("jobs", JobId=job_id))
    Job(job_id).update([Job.Executors.set(AS_AFTER_MANY)])
    for _ in range(5):
        answer = starts.start_job(ADMIN, job_id, StartRequest([Target("c1", "n1")]))
        assert size_of_item(item_of("jobs", JobId=job_id)) - own <= 4 * KIB
    assert len(answer.Executors) == store.executions.LISTED_EXECUTORS
    assert len(msgspec.json.encode(answer)) <= 4 * KIB


def test_the_largest_execution() -> None:
    """The longest command on the most targets with the longest names, on nodes that nobody announced."""
    longest = JobRequest(
        AppName="a" * 128,
        ServiceName="s" * 128,
        Name="n" * 64,
        Cmd="c" * 4096,
        Env=["E=" + "x" * (16 * KIB - 2)],
        SecretArgs=["s" * 3 * KIB],
    )
    job_id = jobs.create_job(ADMIN, longest).JobId
    targets = [Target(f"{number:0128}", f"{number:080}") for number in range(1000)]
    executor_id = starts.start_job(ADMIN, job_id, StartRequest(targets)).Executors[-1]
    execution = size_of_item(item_of("executions", JobId=job_id, ExecutorId=executor_id))
    parts = [size_of_item(part.serialize()) for part in TargetPart.scan()]
    assert execution <= 32 * KIB
    assert max(parts) <= 16 * KIB
    # A transaction takes 4 MB and 100 items.
    assert execution + sum(parts) + 100 * KIB <= 4 * 1000**2
    assert len(parts) + 32 + 3 <= 100


def test_a_list_of_a_thousand_jobs_that_were_started_often() -> None:
    with Job.batch_write() as batch:
        for number in range(1000):
            names = {"AppName": "a", "Name": f"{number:064}", "Executors": AS_AFTER_MANY}
            batch.save(build_job(f"{number:036}", **names))
    answer = msgspec.json.encode(jobs.list_jobs(ADMIN, None))
    # Lambda answers at most 6,291,556 bytes.
    assert len(answer) <= 3 * KIB**2
