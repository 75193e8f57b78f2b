"""Replacing a job, and which of its secrets an edit keeps."""

from typing import Any

import pytest

from tests.support.job_fields import ADDITIONS, CHANGED_JOB, FIELDS
from tests.support.waiting import eventually

from .backstage import Backstage, Node
from .client import Api, Json, container, fields, invalid, ok, refused, target, unique


def _start(api: Api, node: Node, job_id: str) -> str:
    return api.new_execution(job_id, [target(node.node_id)])


def test_put_replaces_the_job(api: Api) -> None:
    job = api.new_job()
    edit: Json = {**CHANGED_JOB, "AppName": unique()}
    answer = ok(api.put(job["JobId"], edit))
    assert answer == {**job, **edit, "SecretArgs": ["***"]}
    assert api.job(job["JobId"]) == answer


def test_put_of_the_whole_object_changes_nothing(
    api: Api, backstage: Backstage, node: Node
) -> None:
    job = api.new_job(SecretArgs=["a", "密码", "cc", ""])
    _start(api, node, job["JobId"])
    present = api.job(job["JobId"])
    assert ok(api.put(job["JobId"], present)) == present
    assert api.job(job["JobId"]) == present
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == ["a", "密码", "cc", ""]


def test_put_does_not_take_ids_from_the_body(api: Api) -> None:
    job, other = api.new_job(), api.new_job()
    edit = {**job, "JobId": other["JobId"], "Executors": ["1.000000"]}
    assert ok(api.put(job["JobId"], edit)) == job
    assert api.job(other["JobId"]) == other


def test_put_keeps_the_executors(api: Api, node: Node) -> None:
    job = api.new_job()
    executor = _start(api, node, job["JobId"])
    assert ok(api.put(job["JobId"], {**job, "Cmd": "uptime"}))["Executors"] == [executor]


@pytest.mark.parametrize("name", ADDITIONS)
def test_an_edit_by_who_does_not_know_an_addition_keeps_it(
    api: Api, backstage: Backstage, node: Node, name: str
) -> None:
    field = FIELDS[name]
    job = api.new_job(**{name: field.sent})
    edit = {key: value for key, value in job.items() if key != name}
    for sent, kept in (
        ({}, field.sent),
        ({name: None}, field.sent),
        ({name: field.changed}, field.changed),
        ({name: field.default}, field.default),
    ):
        assert ok(api.put(job["JobId"], {**edit, **sent}))[name] == kept
        assert api.job(job["JobId"])[name] == kept
        executor = _start(api, node, job["JobId"])
        assert backstage.snapshot(job["JobId"], executor).get(name, field.default) == kept


ABSENT = ...
KEPT: list[tuple[list[str], Any, list[str]]] = [
    (["a", "bb"], ABSENT, ["a", "bb"]),
    (["a", "bb"], None, ["a", "bb"]),
    (["a", "bb"], [], []),
    (["a", "bb"], ["*", "**"], ["a", "bb"]),
    (["a", "bb"], ["*", "new"], ["a", "new"]),
    (["a", "bb"], ["**"], ["bb"]),
    (["a", "bb"], ["*"], ["a"]),
    (["a", "bb"], ["new", "**"], ["new", "bb"]),
    (["a", "bb"], ["*", "between", "**"], ["a", "between", "bb"]),
    (["aa", "bb"], ["**"], ["aa"]),
    (["aa", "bb"], ["**", "**"], ["aa", "bb"]),
    (["aa", "bb", "c"], ["**", "*"], ["aa", "c"]),
    (["aa", "bb"], ["**", "cc"], ["aa", "cc"]),
    (["aa", "bb"], ["cc", "**"], ["cc", "aa"]),
    (["aa", "bb"], ["aa", "**"], ["aa", "aa"]),
    (["密码"], ["**"], ["密码"]),
    (["😀"], ["*"], ["😀"]),
    (["*", "b"], ["*", "*"], ["*", "b"]),
    (["a"], ["* "], ["* "]),
    (["a"], ["**x", "*"], ["**x", "a"]),
    ([], ["new"], ["new"]),
    ([], None, []),
    (["a", ""], ["*", ""], ["a", ""]),
]


@pytest.mark.parametrize(("stored", "sent", "expected"), KEPT, ids=repr)
def test_secrets_after_an_edit(
    api: Api,
    backstage: Backstage,
    node: Node,
    stored: list[str],
    sent: Any,
    expected: list[str],
) -> None:
    body = fields(SecretArgs=stored)
    job = ok(api.create(body))
    edit = {**body, "SecretArgs": sent}
    if sent is ABSENT:
        del edit["SecretArgs"]
    masks = ["*" * len(secret) for secret in expected]
    assert ok(api.put(job["JobId"], edit))["SecretArgs"] == masks
    assert api.job(job["JobId"])["SecretArgs"] == masks
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == expected


UNMATCHED: list[tuple[list[str], list[str], int]] = [
    (["a", "bb"], ["***"], 0),
    (["a", "bb"], ["*", "*"], 1),
    (["a", "bb"], ["*", "**", "**"], 2),
    (["aa"], ["new", "**", "other", "**"], 3),
    (["密码"], ["******"], 0),
    (["密码"], ["*"], 0),
    ([], ["*"], 0),
]


@pytest.mark.parametrize(("stored", "sent", "index"), UNMATCHED, ids=repr)
def test_mask_without_a_secret(
    api: Api, backstage: Backstage, node: Node, stored: list[str], sent: list[str], index: int
) -> None:
    """The edit is refused as a whole: field, name and secrets stay, and the new name stays free."""
    body = fields(SecretArgs=stored)
    job = ok(api.create(body))
    edit = {**body, "Name": "new", "Cmd": "changed", "SecretArgs": sent}
    message = invalid(api.put(job["JobId"], edit), "SecretArgs")
    assert str(index) in message
    assert api.job(job["JobId"]) == job
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == stored
    snapshot = backstage.snapshot(job["JobId"], executor)
    assert (snapshot["Cmd"], snapshot["Name"]) == ("ps axu", "上线")
    api.new_job(AppName=job["AppName"], Name="new")


REFUSED: list[Json] = [
    {"Name": ""},
    {"Cmd": "'"},
    {"User": "a b"},
    {"Env": ["x"]},
    {"Privileged": "no"},
    {"SecretArgs": ["new", 1]},
]


@pytest.mark.parametrize("wrong", REFUSED, ids=repr)
def test_refused_put_changes_nothing(
    api: Api, backstage: Backstage, node: Node, wrong: Json
) -> None:
    job = api.new_job()
    edit = fields(
        AppName=job["AppName"], Name="new", Cmd="changed", Env=["z=z"], SecretArgs=["new"]
    )
    invalid(api.put(job["JobId"], {**edit, **wrong}))
    assert api.job(job["JobId"]) == job
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == ["x", "yy"]
    snapshot = backstage.snapshot(job["JobId"], executor)
    assert (snapshot["Cmd"], snapshot["Env"]) == ("ps axu", ["a=b", "c=d"])


def test_put_refused_for_its_name_keeps_the_secrets(
    api: Api, backstage: Backstage, node: Node
) -> None:
    other = api.new_job(Name="taken")
    job = api.new_job(AppName=other["AppName"])
    edit = {**job, "Name": "taken", "SecretArgs": ["new"]}
    refused(api.put(job["JobId"], edit), 400, "jobs_name_duplicated_error", "taken")
    assert api.job(job["JobId"]) == job
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == ["x", "yy"]


def test_second_edit_sees_the_first(api: Api, backstage: Backstage, node: Node) -> None:
    job = api.new_job(SecretArgs=["a", "bb"])
    job = ok(api.put(job["JobId"], {**job, "SecretArgs": ["ccc", "**"]}))
    invalid(api.put(job["JobId"], {**job, "SecretArgs": ["*"]}))
    job = ok(api.put(job["JobId"], {**job, "SecretArgs": ["**", "***"]}))
    executor = _start(api, node, job["JobId"])
    assert backstage.secrets(job["JobId"], executor) == ["bb", "ccc"]


def test_put_while_starting_loses_neither(api: Api, node: Node) -> None:
    job = api.new_job()
    executors = [_start(api, node, job["JobId"]) for _ in range(3)]
    ok(api.put(job["JobId"], {**job, "Cmd": container()}))
    assert api.job(job["JobId"])["Executors"] == executors


def test_list_shows_the_edit(api: Api) -> None:
    job = api.new_job()
    answer = ok(api.put(job["JobId"], {**job, "Cmd": "uptime"}))

    def check() -> None:
        assert ok(api.jobs(job["AppName"])) == [answer]

    eventually(check)
