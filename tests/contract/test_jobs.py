"""Creating, reading, listing and deleting jobs; ground rules; unique names."""

import re
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from tests.support.job_fields import CLEARED, DEFAULTS, FIELDS, REQUIRED
from tests.support.waiting import eventually

from .client import (
    Api,
    at_once,
    fields,
    invalid,
    least,
    ok,
    refused,
    target,
    unique,
)


def test_create_answers_the_job(api: Api) -> None:
    body = fields()
    job = ok(api.create(body))
    assert set(job) >= FIELDS.keys() | {"JobId", "Executors"}
    assert UUID(job["JobId"]).version == 4
    assert {key: job[key] for key in body} == {**body, "SecretArgs": ["*", "**"]}
    assert job["Executors"] == []


def test_get_answers_what_create_answered(api: Api) -> None:
    job = api.new_job()
    assert ok(api.get(job["JobId"])) == job


def test_defaults_of_optional_fields(api: Api) -> None:
    body = least()
    job = ok(api.create(body))
    assert {key: job[key] for key in [*body, *DEFAULTS]} == {**body, **DEFAULTS}


@pytest.mark.parametrize("field", DEFAULTS)
def test_null_is_absent_on_create(api: Api, field: str) -> None:
    assert ok(api.create(fields(**{field: None})))[field] == DEFAULTS[field]


@pytest.mark.parametrize("field", CLEARED)
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_absent_on_put_is_the_default(api: Api, field: str, absent: bool) -> None:
    body = fields()
    job = ok(api.create(body))
    edit = {**body, field: None}
    if absent:
        del edit[field]
    assert ok(api.put(job["JobId"], edit))[field] == DEFAULTS[field]
    assert api.job(job["JobId"])[field] == DEFAULTS[field]


@pytest.mark.parametrize("field", [name for name in FIELDS if FIELDS[name].default is REQUIRED])
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_required_fields(api: Api, field: str, absent: bool) -> None:
    job = api.new_job()
    body: dict[str, Any] = fields(**{field: None})
    if absent:
        del body[field]
    invalid(api.create(body), field)
    invalid(api.put(job["JobId"], body), field)
    assert api.job(job["JobId"]) == job


def test_unknown_keys_are_ignored(api: Api) -> None:
    odd = {"secretArgs": [], "cmd": 7, "JobId": "mine", "Executors": ["1.0"], "作业": {"a": [None]}}
    job = ok(api.create(fields(**odd)))
    assert job["SecretArgs"] == ["*", "**"]
    assert job["Cmd"] == "ps axu"
    assert job["JobId"] != "mine"
    assert job["Executors"] == []
    assert not set(job) & {"secretArgs", "cmd", "作业"}


def test_unknown_keys_in_start_are_ignored(api: Api) -> None:
    job = api.new_job()
    one = target(unique("node"))
    body = {"Target": [{**one, "Hostname": "x", "containerId": 3}], "target": 1}
    executor = ok(api.send_json("POST", f"/jobs/{job['JobId']}/start", body))["Executors"][-1]
    answer = api.execution(job["JobId"], executor)
    assert [answer["Target"][0][key] for key in one] == list(one.values())


def test_non_ascii_is_not_escaped(api: Api) -> None:
    text = "上线 é😀"
    job = api.new_job(Name=text)
    for answer in (
        api.get(job["JobId"]),
        api.jobs(job["AppName"]),
        api.put(job["JobId"], job),
        api.start(job["JobId"], [target(unique("node"))]),
        api.create({**least(AppName=job["AppName"]), "Name": text}),
    ):
        assert text.encode() in answer.content
        assert b"\\u" not in answer.content


def test_name_is_trimmed(api: Api) -> None:
    job = api.new_job(Name=" \t上 线\n ")
    assert job["Name"] == "上 线"
    assert api.job(job["JobId"])["Name"] == "上 线"


# Names


def test_duplicate_name(api: Api) -> None:
    job = api.new_job()
    again = api.create(least(AppName=job["AppName"]))
    refused(again, 400, "jobs_name_duplicated_error", "上线")


def test_same_name_in_another_app(api: Api) -> None:
    assert api.new_job()["Name"] == api.new_job()["Name"]


def test_trimmed_names_collide(api: Api) -> None:
    job = api.new_job()
    again = api.create(least(AppName=job["AppName"], Name="  上线 "))
    refused(again, 400, "jobs_name_duplicated_error", "上线")


def test_names_differ_by_case(api: Api) -> None:
    job = api.new_job(Name="deploy")
    api.new_job(AppName=job["AppName"], Name="Deploy")


def test_app_and_name_do_not_run_together(api: Api) -> None:
    """Whatever joins the two in storage, other pairs are other names."""
    app = unique()
    for separator in "/:#|-_ ":
        api.new_job(AppName=f"{app}{separator}a", Name="b")
        api.new_job(AppName=app, Name=f"a{separator}b")


def test_rename_to_anothers_name(api: Api) -> None:
    first = api.new_job(Name="first")
    second = api.new_job(AppName=first["AppName"], Name="second")
    edit = {**second, "Name": " first ", "Cmd": "changed"}
    refused(api.put(second["JobId"], edit), 400, "jobs_name_duplicated_error", "first")
    assert api.job(second["JobId"]) == second


def test_rename_frees_the_old_name(api: Api) -> None:
    job = api.new_job(Name="old")
    assert ok(api.put(job["JobId"], {**job, "Name": "new"}))["Name"] == "new"
    api.new_job(AppName=job["AppName"], Name="old")
    taken = api.create(least(AppName=job["AppName"], Name="new"))
    refused(taken, 400, "jobs_name_duplicated_error", "new")


def test_move_to_another_app(api: Api) -> None:
    job = api.new_job()
    other = api.new_job(Name="other")
    ok(api.put(job["JobId"], {**job, "AppName": other["AppName"]}))
    api.new_job(AppName=job["AppName"])
    eventually(lambda: _listed(api, other["AppName"], ["other", "上线"]))


def test_move_onto_anothers_name(api: Api) -> None:
    job, other = api.new_job(), api.new_job()
    edit = {**job, "AppName": other["AppName"]}
    refused(api.put(job["JobId"], edit), 400, "jobs_name_duplicated_error", "上线")
    assert api.job(job["JobId"]) == job


def test_concurrent_creates_of_one_name(api: Api) -> None:
    body = fields()
    answers = at_once(lambda _: api.create(body), range(20))
    created = [ok(answer) for answer in answers if answer.status_code == 200]
    assert len(created) == 1
    for answer in answers:
        if answer.status_code != 200:
            refused(answer, 400, "jobs_name_duplicated_error", "上线")
    eventually(lambda: _listed(api, body["AppName"], ["上线"]))


def test_concurrent_renames_to_one_name(api: Api) -> None:
    app = unique()
    jobs = [api.new_job(AppName=app, Name=f"job {index:02}") for index in range(16)]
    answers = at_once(lambda job: api.put(job["JobId"], {**job, "Name": "one"}), jobs)
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 15
    for job, answer in zip(jobs, answers, strict=True):
        if answer.status_code == 400:
            refused(answer, 400, "jobs_name_duplicated_error", "one")
        expected = "one" if answer.status_code == 200 else job["Name"]
        assert api.job(job["JobId"])["Name"] == expected


def test_concurrent_edits_of_one_job_keep_its_names_straight(api: Api) -> None:
    """Whoever comes last, the job owns its present name and no other."""
    job = api.new_job(Name="name")
    names = [f"name {index}" for index in range(8)]
    for answer in at_once(lambda name: api.put(job["JobId"], {**job, "Name": name}), names):
        ok(answer)
    present = api.job(job["JobId"])["Name"]
    assert present in names
    taken = api.create(least(AppName=job["AppName"], Name=present))
    refused(taken, 400, "jobs_name_duplicated_error", present)
    for name in {"name", *names} - {present}:
        api.new_job(AppName=job["AppName"], Name=name)


# Listing


def _listed(api: Api, app: str, names: list[str]) -> None:
    assert [job["Name"] for job in ok(api.jobs(app))] == names


def test_list_filters_and_sorts_by_name(api: Api) -> None:
    app = unique("应用 &=%")
    for name in ("上线", "b", "B", "10", "9", "é"):
        api.new_job(AppName=app, Name=name)
    api.new_job(AppName=app + "x")
    eventually(lambda: _listed(api, app, sorted(["上线", "b", "B", "10", "9", "é"])))


def test_list_sorts_by_app_then_name(api: Api) -> None:
    mark = unique()
    pairs = [(f"{mark}-{app}", name) for app in "cab" for name in "zyx"]
    for app, name in pairs:
        api.new_job(AppName=app, Name=name)

    def check() -> None:
        jobs = [(job["AppName"], job["Name"]) for job in ok(api.jobs())]
        assert [pair for pair in jobs if pair[0].startswith(mark)] == sorted(pairs)
        assert jobs == sorted(jobs)

    eventually(check)


def test_list_shows_the_whole_job(api: Api) -> None:
    job = api.new_job()
    api.new_execution(job["JobId"], [target(unique("node"))])
    present = api.job(job["JobId"])
    assert len(present["Executors"]) == 1

    def check() -> None:
        assert ok(api.jobs(job["AppName"])) == [present]

    eventually(check)


def test_list_of_more_than_a_page(api: Api) -> None:
    """80 jobs of 16 KB are more than DynamoDB reads at once."""
    app = unique()
    env = ["A=" + "x" * 16000]
    names = [f"{index:02}" for index in range(80)]
    at_once(lambda name: api.new_job(AppName=app, Name=name, Env=env), names, threads=8)
    eventually(lambda: _listed(api, app, names))


@pytest.mark.parametrize("app", ["nobody's", "x" * 129, "x" * 3000, "a\x00b"])
def test_list_of_an_app_without_jobs(api: Api, app: str) -> None:
    answer = api.jobs(app)
    if answer.status_code != 400:
        assert ok(answer) == []


# Deletion


def test_delete(api: Api) -> None:
    job = api.new_job()
    assert api.delete(job["JobId"]).status_code == 202
    refused(api.get(job["JobId"]), 404, "job_id_not_found", job["JobId"])
    refused(api.delete(job["JobId"]), 404, "job_id_not_found", job["JobId"])
    refused(api.put(job["JobId"], job), 404, "job_id_not_found", job["JobId"])
    start = api.start(job["JobId"], [target("node")])
    refused(start, 404, "job_id_not_found", job["JobId"])
    eventually(lambda: _listed(api, job["AppName"], []))


def test_delete_frees_the_name(api: Api) -> None:
    job = api.new_job()
    assert api.delete(job["JobId"]).status_code == 202
    assert api.new_job(AppName=job["AppName"])["JobId"] != job["JobId"]


def test_execution_outlives_its_job(api: Api) -> None:
    job = api.new_job()
    one = target(unique("node"))
    executor = api.new_execution(job["JobId"], [one])
    assert api.delete(job["JobId"]).status_code == 202
    assert api.execution(job["JobId"], executor)["Target"] == [one]
    assert api.log(job["JobId"], executor, one["ContainerId"]).status_code == 200


def test_concurrent_deletes(api: Api) -> None:
    job = api.new_job()
    answers = at_once(lambda _: api.delete(job["JobId"]).status_code, range(8))
    assert sorted(answers) == [202] + [404] * 7


# Ids that nobody has

UNKNOWN_IDS = [
    "7d4f6ad2-6fd7-4a0a-8b1b-0c6f3a1f9a11",
    "not-a-uuid",
    "7d4f6ad26fd74a0a8b1b0c6f3a1f9a11",
    "-" * 3000 + "7d4f6ad26fd74a0a8b1b0c6f3a1f9a11",
    "x" * 3000,
    "1496287694.460088",
    "a.b~c_d",
]


@pytest.mark.parametrize("job_id", UNKNOWN_IDS, ids=lambda text: text[:12])
@pytest.mark.parametrize("route", ["get", "put", "delete", "start", "inspect", "log"])
def test_unknown_job(api: Api, route: str, job_id: str) -> None:
    answer = {
        "get": lambda: api.get(job_id),
        "put": lambda: api.put(job_id, fields()),
        "delete": lambda: api.delete(job_id),
        "start": lambda: api.start(job_id, [target("node")]),
        "inspect": lambda: api.inspect(job_id, "1496287694.460088"),
        "log": lambda: api.log(job_id, "1496287694.460088", "container"),
    }[route]()
    refused(answer, 404, "job_id_not_found", job_id)


@pytest.mark.parametrize("odd", ["作业", "{7d4f6ad2-6fd7-4a0a-8b1b-0c6f3a1f9a11}", "a b%c"])
def test_unknown_ids_that_are_escaped_in_a_path(api: Api, odd: str) -> None:
    sent = quote(odd)
    job = api.new_job()
    refused(api.get(sent), 404, "job_id_not_found", odd)
    refused(api.inspect(job["JobId"], sent), 404, "executor_id_not_found", odd)


@pytest.mark.parametrize("executor_id", UNKNOWN_IDS, ids=lambda text: text[:12])
@pytest.mark.parametrize("route", ["inspect", "log"])
def test_unknown_execution(api: Api, route: str, executor_id: str) -> None:
    job = api.new_job()
    if route == "inspect":
        answer = api.inspect(job["JobId"], executor_id)
    else:
        answer = api.log(job["JobId"], executor_id, "container")
    refused(answer, 404, "executor_id_not_found", executor_id)


def test_execution_of_another_job(api: Api) -> None:
    mine, other = api.new_job(), api.new_job()
    executor = api.new_execution(other["JobId"], [target(unique("node"))])
    answer = api.inspect(mine["JobId"], executor)
    refused(answer, 404, "executor_id_not_found", executor)


@pytest.mark.parametrize("container_id", ["nobody", "x" * 3000, "容器"], ids=lambda text: text[:6])
def test_unknown_container(api: Api, container_id: str) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(unique("node"))])
    answer = api.log(job["JobId"], executor, container_id)
    refused(answer, 404, "container_id_not_found", container_id)


def test_executor_id_is_a_time_with_six_decimals(api: Api) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(unique("node"))])
    assert re.fullmatch(r"\d{10}\.\d{6}", executor)
