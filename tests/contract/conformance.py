"""Compares the API's answers with its own OpenAPI document."""

import json
import re
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec
import requests

from chalicelib.openapi import document as openapi

DOCUMENT: dict[str, Any] = msgspec.to_builtins(openapi.document())
# A gateway refuses what is too large before it looks at the route.
GATEWAYS_OWN = {413}


def check(path: str, response: requests.Response) -> None:
    """Fails if the document does not have this answer to this operation."""
    operation = _operation(str(response.request.method), path)
    if operation is None or response.status_code in GATEWAYS_OWN:
        return
    assert str(response.status_code) in operation["responses"], (path, response.status_code)
    answer = operation["responses"][str(response.status_code)]
    assert answer.get("headers", {}).keys() <= response.headers.keys()
    for kind, content in answer.get("content", {}).items():
        assert response.headers["Content-Type"].split(";")[0] == kind
        if kind == "application/json":
            body = json.loads(response.content)
            validator(json.dumps(content["schema"])).validate(body)
        return
    assert not response.content


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """What the document says about this request; None if it is not a route."""
    for template, operations in DOCUMENT["paths"].items():
        pattern = re.sub(r"{\w+}", "[^/]+", template)
        if re.fullmatch(pattern, f"/api{path}") and method.lower() in operations:
            return dict(operations[method.lower()])
    return None


@cache
def validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    """A validator of a schema, given as JSON, that may refer to the document's components."""
    whole = {**json.loads(schema), "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
