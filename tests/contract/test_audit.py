"""Who did what: noted together with the action, read in pages, never with a secret."""

from collections.abc import Callable
from typing import Any

import pytest

from dev.tokens import bearer, make_token, revoke_token
from tests.support.waiting import eventually

from .backstage import Backstage, Node
from .client import Api, Json, at_once, fields, invalid, ok, refused, target, unique


def entries(api: Api, **wanted: str) -> list[Json]:
    """All pages of what is asked for."""
    found: list[Json] = []
    page = ok(api.audit(**wanted))
    found += page["Entries"]
    while page["Next"]:
        page = ok(api.audit(**wanted, Next=page["Next"]))
        found += page["Entries"]
    return found


@pytest.fixture(scope="module")
def new_api(api: Api, aws: Any) -> Callable[..., tuple[Api, str]]:
    """Makes an administrator's token; gives the API to its owner, and the name of the token."""

    def make(*options: str) -> tuple[Api, str]:
        name = unique("admin")
        token = make_token(aws.environment, name, "--role", "admin", "--root", *options)
        return Api(api.base, {**api.headers, **bearer(token)}), name

    return make


def test_what_was_done_to_a_job(api: Api, node: Node, new_api: Callable[..., Any]) -> None:
    actor, name = new_api()
    created = actor.create(fields())
    job = ok(created)
    job_id = job["JobId"]
    ok(actor.put(job_id, {**job, "Cmd": "true"}))
    executor = ok(actor.start(job_id, [target(node.node_id), target(node.node_id)]))["Executors"][0]
    assert actor.delete(job_id).status_code == 202
    actions = ["job.delete", "job.start", "job.edit", "job.create"]

    def noted() -> list[Json]:
        found = entries(api, JobId=job_id)
        assert [entry["Action"] for entry in found] == actions
        return found

    _, started, edited, first = found = eventually(noted)
    assert {entry["Actor"] for entry in found} == {name}
    assert {entry["AppName"] for entry in found} == {job["AppName"]}
    assert len({entry["TokenId"] for entry in found}) == 1
    assert all(entry["SourceIp"] for entry in found)
    assert first["RequestId"] == created.headers["X-Request-Id"]
    assert edited["Fields"] == ["Cmd"]
    assert (started["ExecutorId"], started["Targets"]) == (executor, 2)
    assert [entry["Time"] for entry in found] == sorted(
        (entry["Time"] for entry in found), reverse=True
    )
    assert entries(api, AppName=job["AppName"]) == found


def test_what_is_refused_is_not_noted(api: Api) -> None:
    job = api.new_job()
    refused(api.create(job), 400, "jobs_name_duplicated_error")
    invalid(api.put(job["JobId"], {**job, "SecretArgs": ["*" * 50]}))
    invalid(api.start(job["JobId"], []))
    assert [entry["Action"] for entry in entries(api, AppName=job["AppName"])] == ["job.create"]


def test_concurrent_starts_are_all_noted(api: Api) -> None:
    job_id = api.new_job()["JobId"]
    targets = [target(unique("node"))]
    started = at_once(lambda _: ok(api.start(job_id, targets))["Executors"][-1], range(16), 4)

    def noted() -> None:
        found = [entry for entry in entries(api, JobId=job_id) if entry["Action"] == "job.start"]
        assert sorted(entry["ExecutorId"] for entry in found) == sorted(started)

    eventually(noted)


def test_pages(api: Api) -> None:
    app = unique()
    jobs = at_once(lambda _: api.new_job(AppName=app, Name=unique("n")), range(102), 4)
    page = ok(api.audit(AppName=app))
    assert len(page["Entries"]) == 100
    assert {entry["JobId"] for entry in entries(api, AppName=app)} == {job["JobId"] for job in jobs}


def test_since_and_until(api: Api) -> None:
    app = unique()
    for _ in range(3):
        api.new_job(AppName=app, Name=unique("n"))
    last, middle, first = entries(api, AppName=app)
    since, until = (f"{entry['Time']:.6f}" for entry in (middle, last))
    assert entries(api, AppName=app, Since=since) == [last, middle]
    assert entries(api, AppName=app, Since=since, Until=until) == [middle]
    assert entries(api, AppName=app, Until=since) == [first]
    assert entries(api, AppName=app, Since=until, Until=since) == []
    assert entries(api, JobId=last["JobId"], Since=until, Until=since) == []
    assert entries(api, Since="0", Until="1") == []


@pytest.mark.parametrize(
    "wrong", [{"Since": "today"}, {"Until": "-1"}, {"Since": "nan"}, {"Next": "1"}], ids=str
)
def test_what_cannot_be_asked_for(api: Api, wrong: dict[str, str]) -> None:
    invalid(api.audit(**wrong), next(iter(wrong)))


def test_a_bound_administrator_reads_of_its_applications(
    api: Api, new_api: Callable[..., Any]
) -> None:
    job, foreign = api.new_job(), api.new_job()
    bound, name = new_api("--app", job["AppName"])
    assert {entry["AppName"] for entry in entries(bound)} == {job["AppName"]}
    assert entries(bound, AppName=foreign["AppName"]) == []
    assert entries(bound, JobId=foreign["JobId"]) == []
    assert name in {entry["Name"] for entry in entries(api)}


def test_tokens_made_and_revoked(api: Api, aws: Any) -> None:
    name = unique("token")
    make_token(aws.environment, name, "--role", "viewer")
    assert revoke_token(aws.environment, name)
    found = [entry for entry in entries(api) if entry["Name"] == name]
    assert [entry["Action"] for entry in found] == ["token.revoke", "token.create"]
    assert all("@" in entry["Actor"] for entry in found)
    revoked, made = [entry["Token"] for entry in found]
    assert revoked == made
    assert (made["Role"], made["Apps"], made["MayRunAsRoot"]) == ("viewer", [], False)


def test_no_secret_is_in_the_audit(api: Api, backstage: Backstage) -> None:
    """test_secrecy.py looks for the secret arguments; here are the values that are not secret."""
    marker = unique("MARKER")
    job = api.new_job(Cmd=f"echo {marker}", Env=[f"A={marker}"], SecretArgs=[marker])
    ok(api.put(job["JobId"], {**job, "Cmd": f"true {marker}", "Env": [f"B={marker}"]}))
    items = [item for table, item in backstage.everything() if table.endswith("-audit")]
    assert any(job["JobId"] in str(item) for item in items)
    assert not any(marker in str(item) for item in items)
