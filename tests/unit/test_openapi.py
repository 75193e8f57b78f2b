"""The OpenAPI document: all routes and no others, valid schemas, true examples."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from app import app
from chalicelib.domain import errors
from chalicelib.domain.states import MEANINGS, Reason, Status
from chalicelib.openapi.document import document
from chalicelib.openapi.examples import EXAMPLES
from chalicelib.schemas.executions import StartRequest
from chalicelib.schemas.jobs import JobRequest
from chalicelib.schemas.parsing import parse
from chalicelib.schemas.results import CreateFailedResult, RunningFailedResult
from dev import api_page
from tests.support.job_fields import DEFAULTS

DOCUMENT: dict[str, Any] = msgspec.to_builtins(document())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def test_it_has_the_routes_of_the_app_and_no_others() -> None:
    routes = {
        (method, path)
        for path, methods in app.routes.items()
        for method in methods
        # The document says in general what HEAD is.
        if method not in ("OPTIONS", "HEAD")
    }
    assert {(method, path) for method, path, _ in operations()} == routes


def test_every_error_is_some_routes() -> None:
    documented = {
        error
        for _, _, operation in operations()
        for answer in operation["responses"].values()
        for content in answer.get("content", {}).values()
        for error in content["schema"].get("properties", {}).get("id", {}).get("enum", [])
    }
    classes = [errors.AppjobsError, *errors.AppjobsError.__subclasses__()]
    # Who may call is asked before any route, by a gateway that may have words of its own.
    assert documented == {error.id for error in classes if error.status not in (401, 403)}


def test_every_path_parameter_is_described() -> None:
    for _, path, operation in operations():
        described = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_and_refer_to_what_is_there(name: str) -> None:
    jsonschema_rs.meta.validate(SCHEMAS[name])
    validator(name)


@pytest.mark.parametrize("shape", EXAMPLES, ids=lambda shape: shape.__name__)
def test_examples_keep_to_their_schemas(shape: type) -> None:
    (example,) = SCHEMAS[shape.__name__]["examples"]
    validator(shape.__name__).validate(example)


@pytest.mark.parametrize("shape", [JobRequest, StartRequest])
def test_examples_of_requests_are_taken(shape: type[JobRequest] | type[StartRequest]) -> None:
    parse(json.dumps(EXAMPLES[shape]).encode(), shape)


def test_a_result_has_one_shape_for_each_status() -> None:
    shapes = SCHEMAS["ExecutionAnswer"]["properties"]["Result"]["items"]["oneOf"]
    names = [shape["$ref"].rpartition("/")[2] for shape in shapes]
    statuses = [one for name in names for one in SCHEMAS[name]["properties"]["Status"]["enum"]]
    assert sorted(statuses) == sorted(Status)


@pytest.mark.parametrize(
    "change",
    [{"Status": "DONE"}, {"ExitCode": None}, {"Output": 1}, {"OutputSize": -1}],
    ids=str,
)
def test_a_wrong_result_is_told_from_a_right_one(change: dict[str, Any]) -> None:
    (execution,) = SCHEMAS["ExecutionAnswer"]["examples"]
    wrong = {**execution, "Result": [{**execution["Result"][0], **change}]}
    assert not validator("ExecutionAnswer").is_valid(wrong)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("shape", [CreateFailedResult, RunningFailedResult])
def test_a_failure_has_only_reasons_of_its_status(shape: type, reason: Reason) -> None:
    (example,) = SCHEMAS[shape.__name__]["examples"]
    is_its = example["Status"] in MEANINGS[reason].statuses
    assert validator(shape.__name__).is_valid({**example, "Reason": reason.value}) is is_its


def test_null_will_do_for_what_may_be_left_out() -> None:
    (example,) = SCHEMAS["JobRequest"]["examples"]
    validator("JobRequest").validate({**example, **dict.fromkeys(DEFAULTS)})
    assert not validator("JobRequest").is_valid({**example, "Name": None})


def test_the_page_in_the_docs_is_of_this_document() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/api.md"
    assert page.read_text(encoding="utf-8") == api_page.render(), "run make docs"
