"""The OpenAPI document: a table of the routes, and the same shapes that check their requests.

A new route is a row here. A test fails if a row is missing, or if its route is gone.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from chalicelib.domain.errors import (
    AppjobsError,
    ContainerNotFound,
    ExecutionNotFound,
    InvalidRequest,
    JobNotFound,
    LogNotReady,
    NameTaken,
)
from chalicelib.domain.states import MEANINGS
from chalicelib.openapi.examples import EXAMPLES
from chalicelib.schemas.audit import AuditPage
from chalicelib.schemas.errors import ErrorAnswer
from chalicelib.schemas.executions import ExecutionAnswer, StartRequest, Target
from chalicelib.schemas.history import HistoryPage
from chalicelib.schemas.jobs import JobAnswer, JobRequest, JobsPage
from chalicelib.schemas.results import RESULTS, CreateFailedResult, RunningFailedResult

Json = dict[str, Any]

_DESCRIPTION = """\
Runs commands in the containers of applications on a Docker Swarm. Unknown keys of a request are ignored,
and `null` is the same as leaving a key out. Every answer has the header `X-Request-Id`, which is in
the API's log too. A body of 401 and 403 may be the gateway's own. HEAD answers as GET does, without the
body. A path that is not a route is a 404, id `route_not_found`; another method is a 405 with `Allow`."""
_PATH_PARAMETERS = {"job_id": "The JobId.", "executor_id": "The ExecutorId."}


@dataclass(frozen=True)
class Operation:
    """One method of one route. `answers` are its successes, `errors` what it may raise."""

    method: str
    path: str
    summary: str
    answers: Mapping[int, Json]
    request: type[Struct] | None = None
    query: tuple[Json, ...] = ()
    errors: tuple[type[AppjobsError], ...] = ()


def _ref(shape: type) -> Json:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _content(schema: Json, kind: str = "application/json") -> Json:
    return {"content": {kind: {"schema": schema}}}


def _answer(description: str, shape: type) -> dict[int, Json]:
    return {200: {"description": description, **_content(_ref(shape))}}


def _parameter(place: str, name: str, description: str, required: bool = True) -> Json:
    schema = {"type": "string", "minLength": 1} if required else {"type": "string"}
    return {
        "name": name,
        "in": place,
        "description": description,
        "required": required,
        "schema": schema,
    }


_LOG = {
    200: {
        "description": "The log, every byte, if it has at most 4 MiB; of a target that failed before it "
        "ran, the text of its `E`.",
        **_content({"type": "string"}, "text/plain"),
    },
    302: {
        "description": "A longer log is at this address for 5 minutes. Do not send the token there.",
        "headers": {"Location": {"required": True, "schema": {"type": "string", "format": "uri"}}},
    },
}

_RETRY_AFTER = {
    "description": "After so many seconds, ask again.",
    "required": True,
    "schema": {"type": "integer"},
}
_GATEWAYS = {
    401: {"description": "No token came with the request.", **_content({"type": "object"})},
    403: {"description": "The token does not allow this.", **_content({"type": "object"})},
}

_PAGING = (
    _parameter("query", "Limit", "How many a page has: 1 to 1,000; 100 if there is none.", False),
    _parameter("query", "Next", "The `Next` of the page before.", False),
)

OPERATIONS = (
    Operation(
        "GET",
        "/api/jobs",
        "All jobs, by AppName, then Name",
        {
            200: {
                "description": "All jobs; with `Limit` or `Next`, a page of them.",
                **_content(
                    {"oneOf": [{"type": "array", "items": _ref(JobAnswer)}, _ref(JobsPage)]}
                ),
            }
        },
        query=(
            _parameter("query", "AppName", "Only those of this application.", False),
            *_PAGING,
        ),
        errors=(InvalidRequest,),
    ),
    Operation(
        "POST",
        "/api/jobs",
        "Save a new job",
        _answer("The job.", JobAnswer),
        request=JobRequest,
        errors=(InvalidRequest, NameTaken),
    ),
    Operation(
        "GET",
        "/api/jobs/{job_id}",
        "One job",
        _answer("The job.", JobAnswer),
        errors=(JobNotFound,),
    ),
    Operation(
        "PUT",
        "/api/jobs/{job_id}",
        "Replace a job",
        _answer("The job.", JobAnswer),
        request=JobRequest,
        errors=(InvalidRequest, NameTaken, JobNotFound),
    ),
    Operation(
        "DELETE",
        "/api/jobs/{job_id}",
        "Delete a job; what it started goes on",
        {202: {"description": "It is deleted."}},
        errors=(JobNotFound,),
    ),
    Operation(
        "POST",
        "/api/jobs/{job_id}/start",
        "Start a job on some containers",
        _answer("The job; the last of `Executors` is this start.", JobAnswer),
        request=StartRequest,
        errors=(InvalidRequest, JobNotFound),
    ),
    Operation(
        "GET",
        "/api/jobs/{job_id}/inspect/{executor_id}",
        "What became of each target",
        _answer("The execution with its results.", ExecutionAnswer),
        errors=(JobNotFound, ExecutionNotFound),
    ),
    Operation(
        "GET",
        "/api/jobs/{job_id}/log/{executor_id}",
        "The whole log of one target, as it is now",
        _LOG,
        query=(_parameter("query", "ContainerId", "The target's container."),),
        errors=(
            InvalidRequest,
            JobNotFound,
            ExecutionNotFound,
            ContainerNotFound,
            LogNotReady,
        ),
    ),
    Operation(
        "GET",
        "/api/jobs/{job_id}/history",
        "The executions of a job, the newest first",
        _answer("A page; its `Next` asks for the one after it.", HistoryPage),
        query=_PAGING,
        errors=(InvalidRequest, JobNotFound),
    ),
    Operation(
        "GET",
        "/api/audit",
        "Who did what, the newest first",
        _answer("A page; its `Next` asks for the one after it.", AuditPage),
        query=tuple(
            _parameter("query", name, description, required=False)
            for name, description in (
                ("AppName", "What was done to jobs of this application."),
                ("JobId", "What was done to this job."),
                ("Since", "Not before this time, in seconds since 1970."),
                ("Until", "Before this time, in seconds since 1970."),
                ("Next", "The `Next` of the page before."),
            )
        ),
        errors=(InvalidRequest,),
    ),
    Operation(
        "GET",
        "/api/openapi.json",
        "This document",
        {200: {"description": "The document.", **_content({"type": "object"})}},
    ),
)


@cache
def document() -> Json:
    """The document, in OpenAPI 3.1; callers leave it as it is."""
    paths: dict[str, Json] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "appjobs", "version": "1", "description": _DESCRIPTION},
        # Relative to the document: a gateway has its stage's name before `/api`.
        "servers": [{"url": ".."}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(operation: Operation) -> Json:
    names = re.findall(r"{(\w+)}", operation.path)
    described: Json = {
        "summary": operation.summary,
        "parameters": [
            *(_parameter("path", name, _PATH_PARAMETERS[name]) for name in names),
            *operation.query,
        ],
        "responses": {**_by_text(operation.answers), **_refusals(operation)},
    }
    if operation.request:
        described["requestBody"] = {"required": True, **_content(_ref(operation.request))}
    return described


def _by_text(answers: Mapping[int, Json]) -> Json:
    return {str(status): answer for status, answer in answers.items()}


def _refusals(operation: Operation) -> Json:
    ids: dict[int, list[str]] = defaultdict(list)
    errors: tuple[type[AppjobsError], ...] = (*operation.errors, AppjobsError)
    for error in errors:
        ids[error.status].append(error.id)
    if operation.request:
        ids[HTTPStatus.UNSUPPORTED_MEDIA_TYPE].append(InvalidRequest.id)
    refusals = {status: _refusal(status, ids[status]) for status in ids}
    for error in errors:
        if error.retry_seconds:
            refusals[error.status]["headers"] = {"Retry-After": _RETRY_AFTER}
    return _by_text(dict(sorted({**_GATEWAYS, **refusals}.items())))


def _refusal(status: int, ids: list[str]) -> Json:
    schema = {**_ref(ErrorAnswer), "properties": {"id": {"enum": ids}}}
    return {"description": HTTPStatus(status).phrase, **_content(schema)}


def _schemas() -> Json:
    shapes = (
        JobAnswer,
        JobsPage,
        HistoryPage,
        ExecutionAnswer,
        AuditPage,
        ErrorAnswer,
        Target,
        *RESULTS,
    )
    requests = {operation.request for operation in OPERATIONS if operation.request}
    _, schemas = msgspec.json.schema_components(
        (*shapes, *sorted(requests, key=lambda shape: shape.__name__)),
        ref_template="#/components/schemas/{name}",
    )
    for shape in requests:
        _allow_nulls(schemas[shape.__name__])
    execution = schemas[ExecutionAnswer.__name__]["properties"]
    execution["Target"]["items"] = _ref(Target)
    execution["Result"]["items"] = {"oneOf": [_ref(shape) for shape in RESULTS]}
    for failed in (CreateFailedResult, RunningFailedResult):
        _name_reasons(schemas[failed.__name__])
    for shape, example in EXAMPLES.items():
        schemas[shape.__name__]["examples"] = [example]
    return schemas


def _name_reasons(schema: Json) -> None:
    """Says which reasons come with the status of a failed result."""
    (status,) = schema["properties"]["Status"]["enum"]
    reasons = [reason for reason, meaning in MEANINGS.items() if status in meaning.statuses]
    schema["properties"]["Reason"]["enum"] = sorted(reasons)


def _allow_nulls(schema: Json) -> None:
    """Says of the properties that may be left out that null will do too."""
    for name in schema["properties"].keys() - set(schema["required"]):
        schema["properties"][name]["type"] = [schema["properties"][name]["type"], "null"]
