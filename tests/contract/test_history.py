"""Reading page by page: the history of a job, and lists of jobs."""

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.support.waiting import eventually

from .backstage import Backstage, Node
from .client import Api, Json, at_once, invalid, ok, refused, target, unique

Read = Callable[..., requests.Response]


def pages(read: Read, shown: str, **query: Any) -> list[list[Json]]:
    """All pages from the first to the one without a Next."""
    found = []
    page: Json = {"Next": ""}
    while page["Next"] is not None:
        page = ok(read(**query, **({"Next": page["Next"]} if page["Next"] else {})))
        assert page.keys() == {shown, "Next"}
        found.append(page[shown])
    return found


def of_application(api: Api, app: str) -> Read:
    return lambda **query: api.jobs(app, **query)


def of_job(api: Api, job_id: str) -> Read:
    return lambda **query: api.history(job_id, **query)


def test_a_job_lists_its_newest_100_starts_and_has_all_in_its_history(api: Api, node: Node) -> None:
    job = api.new_job()
    read = of_job(api, job["JobId"])
    started = [api.new_execution(job["JobId"], [target(node.node_id)]) for _ in range(160)]
    listed = api.job(job["JobId"])["Executors"]
    assert listed == started[-100:]
    for limit in (1000, 100, 33):
        found = pages(read, "Executions", Limit=limit)
        assert all(len(page) <= limit for page in found)
        assert [entry["ExecutorId"] for page in found for entry in page] == started[::-1]


def test_the_job_stays_small_however_often_it_was_started(
    api: Api, backstage: Backstage, node: Node
) -> None:
    job = api.new_job()
    starts = at_once(
        lambda _: api.new_execution(job["JobId"], [target(node.node_id)]), range(320), threads=16
    )
    # DynamoDB counts 1 byte beside each element.
    assert sum(len(one) + 1 for one in backstage.job(job["JobId"])["Executors"]) <= 4000
    assert api.job(job["JobId"])["Executors"] == sorted(starts)[-100:]


def test_history_says_what_became_of_each_start(api: Api, node: Node) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(node.node_id), target(node.node_id)])
    ((entry,),) = pages(of_job(api, job["JobId"]), "Executions")
    assert entry == {
        "ExecutorId": executor,
        "CreateTime": float(executor),
        "By": "tests",
        "Total": 2,
    }


def test_history_outlives_the_job(api: Api, node: Node) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(node.node_id)])
    ok(api.history(job["JobId"]))
    api.delete(job["JobId"])
    ((entry,),) = pages(of_job(api, job["JobId"]), "Executions")
    assert entry["ExecutorId"] == executor


def test_history_of_an_unknown_job(api: Api) -> None:
    for unknown in ("02de331e-7f0c-4f0a-9d52-6a1f0c6f7d0b", "nothing"):
        refused(api.history(unknown), 404, "job_id_not_found", unknown)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_an_application_is_listed_page_by_page(api: Api, limit: int) -> None:
    app, names = unique(), [f"n{number}" for number in range(7)]
    for name in names:
        api.new_job(AppName=app, Name=name)

    def check() -> None:
        found = pages(of_application(api, app), "Jobs", Limit=limit)
        assert all(len(page) <= limit for page in found)
        assert [job["Name"] for page in found for job in page] == names

    eventually(check)


def test_all_jobs_are_listed_page_by_page(api: Api) -> None:
    made = [api.new_job()["JobId"] for _ in range(5)]

    def check() -> None:
        found = [job["JobId"] for page in pages(api.jobs, "Jobs", Limit=50) for job in page]
        assert len(found) == len(set(found))
        assert set(made) <= set(found)

    eventually(check)


@pytest.mark.parametrize("wrong", ["0", "1001", "-1", "x", "1.5"])
def test_a_wrong_limit(api: Api, wrong: str) -> None:
    job = api.new_job()
    invalid(api.jobs(Limit=wrong), "Limit")
    invalid(api.history(job["JobId"], Limit=wrong), "Limit")


@pytest.mark.parametrize("wrong", ["x", "1", "00", "5b5d", "\x00", "9" * 3000])
def test_a_wrong_next(api: Api, wrong: str) -> None:
    job = api.new_job()
    invalid(api.jobs(Next=wrong), "Next")
    invalid(api.history(job["JobId"], Next=wrong), "Next")
