"""What the gateway answers by itself, without a function, if the method or the path is not a route.

If no method takes a request, API Gateway thinks that it is one of AWS's own: its answer is about
signatures, and people look for a mistake in their token.
"""

import json
from typing import Any

ANY = "x-amazon-apigateway-any-method"
Json = dict[str, Any]

# A mock integration takes its status from a template, which the request's type selects. If a type is not
# here, the gateway answers 415.
_TYPES = (
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/html",
    "text/plain",
    "text/xml",
    "application/xml",
)
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
# JSON has no \', which is what the function makes of an apostrophe.
PATH = '$util.escapeJavaScript($context.path).replaceAll("\\\\\'", "\'")'


def add_refusals(document: Json) -> None:
    """Adds all other methods to each path of the API's document, and all other paths to the document."""
    for methods in document["paths"].values():
        allowed = ", ".join(sorted(method.upper() for method in methods))
        methods[ANY] = _refusal(405, "invalid_request", f"use one of {allowed}", Allow=allowed)
    for path in ("/", "/{proxy+}"):
        document["paths"][path] = {ANY: _refusal(404, "route_not_found", PATH)}


def _refusal(status: int, id: str, message: str, **more: str) -> Json:
    headers = {**HEADERS, **more}
    body = f'{{"id":"{id}","message":"{message}"}}'
    return {
        "responses": {
            str(status): {
                "description": id,
                "headers": {name: {"type": "string"} for name in headers},
            }
        },
        "x-amazon-apigateway-integration": {
            "type": "mock",
            "passthroughBehavior": "never",
            # All bodies are binary to this API; a template takes text.
            "contentHandling": "CONVERT_TO_TEXT",
            "requestTemplates": {kind: json.dumps({"statusCode": status}) for kind in _TYPES},
            "responses": {
                "default": {
                    "statusCode": str(status),
                    "contentHandling": "CONVERT_TO_TEXT",
                    "responseParameters": {
                        f"method.response.header.{name}": f"'{value}'"
                        for name, value in headers.items()
                    },
                    "responseTemplates": {"application/json": body},
                }
            },
        },
    }
