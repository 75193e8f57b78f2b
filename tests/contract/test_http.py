"""Bodies that are not JSON, methods that are not routes, other web pages, our own errors."""

import json
from pathlib import Path

import pytest
import requests

from tests.support.waiting import eventually

from .backstage import Backstage, Node
from .client import Api, client_error, fields, invalid, ok, refused, target

JSON = {"Content-Type": "application/json"}
ROUTES = [("POST", "/jobs"), ("PUT", "/jobs/{}"), ("POST", "/jobs/{}/start")]
BODIES = {
    "empty": b"",
    "blank": b" ",
    "open": b'{"AppName": ',
    "trailing": b'{"AppName": "a"} x',
    "single quotes": b"{'AppName': 'a'}",
    "utf-16": '{"AppName": "a"}'.encode("utf-16"),
    "nul": b"\x00",
    "array": b"[]",
    "array of jobs": b'[{"AppName": "a", "Name": "b", "Cmd": "c"}]',
    "string": b'"AppName"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
    "half a surrogate": b'{"AppName": "\\ud800", "Name": "a", "Cmd": "ps", "Target": "\\ud800"}',
    "deep": b"[" * 100_000,
    "deep value": b'{"Env": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep unknown": b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
}


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_malformed_body(api: Api, method: str, path: str, body: bytes) -> None:
    job = api.new_job()
    invalid(api.send(method, path.format(job["JobId"]), body, JSON))
    assert api.job(job["JobId"]) == job


def test_body_that_is_no_utf8(api: Api) -> None:
    invalid(api.send("POST", "/jobs", b'{"AppName": "\xff\xfe", "Name": "a", "Cmd": "ps"}', JSON))


def test_numbers_that_are_none(api: Api) -> None:
    for value in (b"NaN", b"Infinity", b"1e999", b"9" * 5000):
        body = b'{"AppName": "a", "Name": "b", "Cmd": "c", "Privileged": ' + value + b"}"
        invalid(api.send("POST", "/jobs", body, JSON))


UNKNOWN = {
    "a number that is too large": b"1e999",
    "5000 digits": b"9" * 5000,
    "490 levels": b"[" * 490 + b"]" * 490,
    "null": b"null",
}


@pytest.mark.parametrize("value", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_keys_are_ignored_whatever_they_hold(api: Api, node: Node, value: bytes) -> None:
    job = api.new_job()
    more = b', "Unknown": ' + value + b"}"
    edit = json.dumps({**job, "Name": "edited"}).encode().removesuffix(b"}") + more
    assert ok(api.send("PUT", f"/jobs/{job['JobId']}", edit, JSON))["Name"] == "edited"
    one = json.dumps(target(node.node_id)).encode().removesuffix(b"}") + more
    start = b'{"Target": [' + one + b"]" + more
    ok(api.send("POST", f"/jobs/{job['JobId']}/start", start, JSON))


def test_a_byte_order_mark_is_no_part_of_the_body(api: Api) -> None:
    body = json.dumps(fields()).encode("utf-8-sig")
    ok(api.send("POST", "/jobs", body, JSON))


def test_refusals_have_no_regular_expressions(api: Api) -> None:
    job = api.new_job()
    for wrong in ({"ContainerId": "/name", "NodeId": "n"}, {"ContainerId": "c", "NodeId": "a b"}):
        message = invalid(api.start(job["JobId"], [wrong]), "Target[0]")
        assert "letters, digits" in message
    assert "the page before" in invalid(api.audit(Next="x"), "Next")


@pytest.mark.parametrize("size", [1, 11], ids=["1 MB", "11 MB"])
def test_huge_body(api: Api, size: int) -> None:
    body = json.dumps(fields(Cmd="x" * size * 1_000_000)).encode()
    answer = api.send("POST", "/jobs", body, JSON)
    assert answer.status_code in (400, 413)
    client_error(answer)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/JSON"])
def test_content_types_of_json(api: Api, kind: str) -> None:
    body = json.dumps(fields(), ensure_ascii=False).encode()
    assert ok(api.send("POST", "/jobs", body, {"Content-Type": kind}))["Name"] == "上线"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x"])
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value)
def test_a_body_of_another_type(api: Api, method: str, path: str, kind: str) -> None:
    job = api.new_job()
    body = json.dumps(fields()).encode()
    answer = api.send(method, path.format(job["JobId"]), body, {"Content-Type": kind})
    assert "application/json" in refused(answer, 415, "invalid_request")
    assert api.job(job["JobId"]) == job


TYPES = [{}, {"Content-Type": "text/plain;charset=UTF-8"}, {"Content-Type": "x"}]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("headers", TYPES, ids=str)
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value)
def test_a_body_that_is_missing(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    job = api.new_job()
    answer = api.send(method, path.format(job["JobId"]), headers=headers)
    assert "body is empty" in invalid(answer)
    assert api.job(job["JobId"]) == job


@pytest.mark.parametrize("headers", [*TYPES, FORM], ids=str)
def test_without_a_body_the_type_is_ignored(api: Api, node: Node, headers: dict[str, str]) -> None:
    job = api.new_job()
    one = target(node.node_id)
    job_id, executor = job["JobId"], api.new_execution(job["JobId"], [one])
    for path in (
        "/jobs",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/inspect/{executor}",
        f"/jobs/{job_id}/log/{executor}?ContainerId={one['ContainerId']}",
        "/audit",
        "/openapi.json",
    ):
        for method in ("GET", "HEAD"):
            assert api.send(method, path, headers=headers).status_code == 200, (method, path)
    # As curl -d '' sends it.
    assert api.send("DELETE", f"/jobs/{job_id}", b"", headers).status_code == 202
    refused(api.get(job_id), 404, "job_id_not_found", job_id)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/jobs"),
        ("DELETE", "/jobs"),
        ("PATCH", "/jobs"),
        ("POST", "/jobs/{}"),
        ("PATCH", "/jobs/{}"),
        ("GET", "/jobs/{}/start"),
        ("PUT", "/jobs/{}/start"),
        ("DELETE", "/jobs/{}/start"),
        ("POST", "/jobs/{}/inspect/1.0"),
        ("DELETE", "/jobs/{}/inspect/1.0"),
        ("PUT", "/jobs/{}/log/1.0"),
    ],
)
def test_wrong_method(api: Api, method: str, path: str) -> None:
    job = api.new_job()
    for headers in (JSON, {"Content-Type": "text/plain"}, {"Authorization": None}):
        answer = api.send(method, path.format(job["JobId"]), b"{}", headers)
        message = refused(answer, 405, "invalid_request")
        assert message == f"use one of {answer.headers['Allow']}"
        allowed = answer.headers["Allow"].split(", ")
        assert allowed
        assert method not in allowed
    assert api.job(job["JobId"]) == job


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/jobs/x/nothing", "/jobs/x/inspect", "/jobs/x/log", "/jobs/x/start/y/z", ""],
)
def test_no_such_route(api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH"):
        for headers in ({}, JSON, {"Content-Type": "text/plain"}, {"Authorization": None}):
            answer = api.send(method, path, headers=headers)
            message = refused(answer, 404, "route_not_found")
            # MiniStack does not fill in the template.
            assert "Host" in api.headers or message == f"/api{path}"


def test_head_is_get_without_the_body(api: Api) -> None:
    job = api.new_job()
    for path in ("/jobs?AppName=" + job["AppName"], f"/jobs/{job['JobId']}", "/jobs/nobody"):
        head, get = (api.send(method, path) for method in ("HEAD", "GET"))
        assert head.status_code == get.status_code
        assert head.content == b""
        for name in ("Content-Type", "Cache-Control"):
            assert head.headers[name] == get.headers[name]


def test_what_every_answer_says(api: Api, allowed_origin: str) -> None:
    for answer in (
        api.send("GET", "/jobs/nobody"),
        api.send("GET", "/jobs/nobody", headers={"Authorization": None}),
        api.send("GET", "/openapi.json"),
        api.send("GET", "/nothing"),
        api.send("PATCH", "/jobs", b"{}", JSON),
        api.send("POST", "/jobs", b"{", JSON),
        _preflight(api, "/jobs", "POST", allowed_origin),
        api.delete(api.new_job()["JobId"]),
    ):
        # What MiniStack's gateway answers by itself lacks what the document asks for.
        if answer.status_code != 401:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        # A gateway adds a type by itself.
        if "Host" not in api.headers and not answer.content:
            assert "Content-Type" not in answer.headers


# Cross-origin requests


def _preflight(api: Api, path: str, method: str, origin: str) -> requests.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type,authorization",
    }
    return api.send("OPTIONS", path, headers=headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("GET", "/jobs/x"),
        ("PUT", "/jobs/x"),
        ("DELETE", "/jobs/x"),
        ("POST", "/jobs/x/start"),
        ("GET", "/jobs/x/inspect/1.0"),
        ("GET", "/jobs/x/log/1.0"),
    ],
)
def test_preflight_of_the_allowed_origin(
    api: Api, allowed_origin: str, method: str, path: str
) -> None:
    answer = _preflight(api, path, method, allowed_origin)
    assert answer.status_code in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == allowed_origin
    assert method in answer.headers["Access-Control-Allow-Methods"].replace(" ", "").split(",")
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().replace(" ", "").split(",")
    assert set(allowed) >= {"content-type", "authorization"}


def test_answers_to_the_allowed_origin(api: Api, allowed_origin: str) -> None:
    """Errors too: a page has to read their id."""
    origin = {"Origin": allowed_origin}
    job = api.new_job()
    for answer in (
        api.send("GET", "/jobs", headers=origin, params={"AppName": job["AppName"]}),
        api.send("GET", f"/jobs/{job['JobId']}", headers=origin),
        api.send("GET", "/jobs/nobody", headers=origin),
        api.send("POST", "/jobs", b"{", {**JSON, **origin}),
        api.send("DELETE", f"/jobs/{job['JobId']}", headers=origin),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == allowed_origin


def test_another_origin(api: Api) -> None:
    other = "https://evil.example"
    for answer in (
        _preflight(api, "/jobs", "POST", other),
        api.send("GET", "/jobs/nobody", headers={"Origin": other}),
    ):
        assert answer.headers.get("Access-Control-Allow-Origin") not in ("*", other)


# Our own faults


def test_internal_error(api: Api, backstage: Backstage, node: Node, api_log: Path | None) -> None:
    job = api.new_job()
    one = target(node.node_id)
    executor = api.new_execution(job["JobId"], [one])
    backstage.break_result((job["JobId"], executor), one)
    answer = api.inspect(job["JobId"], executor)
    request_id = refused(answer, 500, "internal_error")
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert len(request_id) >= 8
    if api_log:
        eventually(lambda: _logged_with_traceback(api_log, request_id))


def _logged_with_traceback(log: Path, request_id: str) -> None:
    text = log.read_text(errors="replace")
    assert request_id in text
    near = text.index(request_id)
    assert "Traceback" in text[max(0, near - 10_000) : near + 10_000]
