"""Events as the gateway sends them, and what it gets back."""

import base64
import json
import logging
from typing import Any

import msgspec
import pytest

from app import app
from chalicelib.domain.errors import InvalidRequest, LogNotReady
from chalicelib.routes import http
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import downloads, jobs
from tests.unit.callers import ADMIN


def event(method: str, path: str, body: str | None = None, **more: Any) -> dict[str, Any]:
    """A request of an administrator."""
    return {
        "requestContext": {
            "httpMethod": method,
            "resourcePath": path,
            "path": f"/v1{path}",
            "requestId": "r1",
            "identity": {"sourceIp": "192.0.2.7"},
            "authorizer": {
                "principalId": ADMIN.token_id,
                "caller": json.dumps(msgspec.to_builtins(ADMIN)),
            },
        },
        "headers": {},
        "multiValueQueryStringParameters": None,
        "pathParameters": {},
        "stageVariables": None,
        "body": body,
        "isBase64Encoded": False,
        **more,
    }


@pytest.mark.usefixtures("aws")
def test_bodies_arrive_in_base64_where_all_are_binary() -> None:
    job = json.dumps({"AppName": "a", "Name": "上线", "Cmd": "ps"}, ensure_ascii=False)
    body = base64.b64encode(job.encode()).decode()
    headers = {"content-type": "application/json"}
    answer = app(event("POST", "/api/jobs", body, isBase64Encoded=True, headers=headers), None)
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["Name"] == "上线"
    assert not answer.get("isBase64Encoded")


@pytest.mark.usefixtures("aws")
def test_the_log_line_of_a_request_says_who_sent_it_from_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        app(event("GET", "/api/jobs"), None)
    (line,) = [record.msg for record in caplog.records if record.msg["event"] == "request"]
    assert line["source_ip"] == "192.0.2.7"
    assert line["token_id"] == ADMIN.token_id


@pytest.mark.usefixtures("aws")
def test_what_may_succeed_later_says_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object) -> None:
        raise LogNotReady("not yet")

    monkeypatch.setattr(downloads, "read_log", read)
    path = {"job_id": "j1", "executor_id": "1.000000"}
    query = {"ContainerId": ["c1"]}
    route = "/api/jobs/{job_id}/log/{executor_id}"
    answer = app(
        event("GET", route, pathParameters=path, multiValueQueryStringParameters=query), None
    )
    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
    assert json.loads(answer["body"]) == {"id": "log_not_ready", "message": "not yet"}


def test_what_chalice_refuses_is_said_in_our_form() -> None:
    answer = app(event("PATCH", "/api/jobs"), None)
    assert answer["statusCode"] == 405
    assert json.loads(answer["body"])["id"] == "invalid_request"
    assert "HEAD" in answer["headers"]["Allow"]
    assert answer["headers"]["X-Content-Type-Options"] == "nosniff"


def test_bytes_travel_in_base64_and_no_type_decides_it() -> None:
    content = bytes(range(256))
    answer = http.Bytes(content, {"Content-Type": "text/plain"}).to_dict(app.api.binary_types)
    assert base64.b64decode(answer["body"]) == content
    assert answer["isBase64Encoded"]
    zipped = http.answer_json({}).to_dict(app.api.binary_types)
    assert (zipped["body"], "isBase64Encoded" in zipped) == ("{}", False)


@pytest.mark.parametrize("text", ['"', "\\", "密", "x", "\n"])
def test_what_lambda_could_not_answer_is_refused(text: str) -> None:
    """Lambda counts the body as a JSON string."""

    def payload(count: int) -> int:
        answer = http.answer_json([text * count], smaller="ask for one application").to_dict([])
        return len(json.dumps(answer, ensure_ascii=False).encode())

    each = payload(2) - payload(1)
    assert 6_250_000 < payload(6_280_000 // each) < 6_291_556
    with pytest.raises(InvalidRequest, match="ask for one application"):
        payload(6_291_556 // each)


@pytest.mark.usefixtures("aws")
def test_a_list_that_is_too_large_says_how_to_ask_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "ab":
        jobs.create_job(ADMIN, JobRequest(AppName=name, Name="n", Cmd="x" * 4000))
    page = {"multiValueQueryStringParameters": {"Limit": ["1"]}}
    monkeypatch.setattr(http, "_LARGEST_BYTES", 6000)
    whole = app(event("GET", "/api/jobs"), None)
    assert whole["statusCode"] == 400
    assert "?Limit=100" in json.loads(whole["body"])["message"]
    assert app(event("GET", "/api/jobs", **page), None)["statusCode"] == 200
    monkeypatch.setattr(http, "_LARGEST_BYTES", 3000)
    assert "smaller ?Limit=" in app(event("GET", "/api/jobs", **page), None)["body"]
