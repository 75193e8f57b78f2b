"""The API over HTTP on this machine, as on API Gateway: `python -m dev.gateway --port 8000`.

Chalice runs the authorizer and the app as the gateway would; waitress speaks HTTP.
"""

import argparse
import base64
import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import structlog
from chalice import Chalice
from chalice.config import Config
from chalice.local import (
    LambdaEventConverter,
    LocalChalice,
    LocalGateway,
    LocalGatewayException,
    RouteMatcher,
)
from waitress import create_server

from deploy.package import completion
from deploy.refusals import HEADERS

log = structlog.stdlib.get_logger("gateway")

# Lambda takes and gives no more; API Gateway itself would take 10 MB.
LARGEST_EVENT_BYTES = 6 * 1024 * 1024
# Base64 makes it longer by a third.
LARGEST_BODY_BYTES = LARGEST_EVENT_BYTES * 3 // 4
# API Gateway's limit, for all header lines together.
LARGEST_HEADERS_BYTES = 10_240
# Up to here we read to the end, so that the sender can read the refusal; beyond, waitress hangs up.
_HEADERS_READ_BYTES = 256 * 1024
_BODY_READ_BYTES = 64 * 1024 * 1024
_THREADS = 32
_CONNECTIONS = 1000
_IDLE_SECONDS = 60
# How long an answer may still take after a signal.
_STOP_SECONDS = 10.0
_JSON = {"Content-Type": "application/json"}
_CONFIG = Path(__file__).resolve().parent.parent / ".chalice" / "config.json"
# The API's document says what is not a token, and what the answer to it is.
_DOCUMENT = completion()["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
_AUTHORIZER = _DOCUMENT["securityDefinitions"]["authorizer"]["x-amazon-apigateway-authorizer"]
_TOKEN = re.compile(_AUTHORIZER["identityValidationExpression"])
_UNAUTHORIZED = _DOCUMENT["x-amazon-apigateway-gateway-responses"]["UNAUTHORIZED"]
_NO_TOKEN = str(_UNAUTHORIZED["responseTemplates"]["application/json"])

Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    headers: dict[str, Any]
    body: bytes = b""


class Gateway:
    """The app as a WSGI application."""

    def __init__(self, app: Chalice) -> None:
        # Chalice keeps the current request in the app: here, one for each thread.
        app.__class__ = type("LocalApp", (LocalChalice, app.__class__), {})
        disk = json.loads(_CONFIG.read_text(encoding="utf-8"))
        config = Config("local", user_provided_params={"chalice_app": app}, config_from_disk=disk)
        self._routes = app.routes
        self._matcher = RouteMatcher(list(app.routes))
        self._gateway = LocalGateway(app, config)
        self._gateway.event_converter = _Events(self._matcher)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        try:
            answer = self._answer(environ)
        except LocalGatewayException as refusal:
            answer = Answer(refusal.CODE, {**_JSON, **refusal.headers}, refusal.body or b"")
        except Exception:  # as the gateway says it of an authorizer or a function that failed
            log.exception("the API failed")
            answer = _message(502, "Internal server error")
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", _headers(answer))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: Environ) -> Answer:
        method, target = environ["REQUEST_METHOD"], _target(environ["REQUEST_URI"])
        headers = _request_headers(environ)
        if refusal := self._refusal(method, target.partition("?")[0], headers):
            return refusal
        body = environ["wsgi.input"].read()
        if len(body) > LARGEST_BODY_BYTES:
            return _error(
                413, "invalid_request", f"the body is longer than {LARGEST_BODY_BYTES} bytes"
            )
        return _from_lambda(self._gateway.handle_request(method, target, headers, body or None))

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> Answer | None:
        """What the gateway answers by itself."""
        methods = self._methods(path)
        if sum(len(name) + len(value) for name, value in headers.items()) > LARGEST_HEADERS_BYTES:
            limit = f"the headers are longer than {LARGEST_HEADERS_BYTES} bytes"
            return _error(431, "invalid_request", limit)
        if not methods:
            return _error(404, "route_not_found", path)
        if method not in methods:
            allowed = ", ".join(sorted(methods))
            refusal = _error(405, "invalid_request", f"use one of {allowed}")
            return refusal._replace(headers={**refusal.headers, "Allow": allowed})
        token = headers.get("authorization", "")
        if self._wants_token(method, path) and not _TOKEN.fullmatch(token):
            return Answer(401, dict(_JSON), _NO_TOKEN.encode())
        return None

    def _wants_token(self, method: str, path: str) -> bool:
        route = self._routes[self._matcher.match_route(path).route][method]
        return route.authorizer is not None

    def _methods(self, path: str) -> set[str]:
        try:
            return set(self._routes[self._matcher.match_route(path).route])
        except ValueError:
            return set()


class _Events(LambdaEventConverter):  # type: ignore[misc]
    """Events as the gateway makes them: with decoded path parameters, and bodies in base64."""

    def create_lambda_event(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        event: dict[str, Any] = super().create_lambda_event(*args, **kwargs)
        captured = event["pathParameters"] or {}
        event["pathParameters"] = {name: unquote(value) for name, value in captured.items()}
        event["requestContext"]["requestId"] = str(uuid4())
        return event

    def _is_binary(self, headers: dict[str, Any]) -> bool:
        # The API's document says so of all types.
        return True


def _target(uri: str) -> str:
    """Path and query of a request line, which may have the whole address, as for a proxy."""
    if uri.startswith("/"):
        return uri
    parts = urlsplit(uri)
    return parts._replace(scheme="", netloc="").geturl()


def _request_headers(environ: Environ) -> dict[str, str]:
    names = {
        key.removeprefix("HTTP_"): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return {name.replace("_", "-").lower(): value for name, value in names.items()}


def _from_lambda(response: dict[str, Any]) -> Answer:
    if len(json.dumps(response, ensure_ascii=False).encode(errors="replace")) > LARGEST_EVENT_BYTES:
        log.error("the answer is larger than Lambda allows")
        return _message(502, "Internal server error")
    body = response["body"] or ""
    content = base64.b64decode(body) if response.get("isBase64Encoded") else body.encode()
    headers = {**(response["headers"] or {}), **(response["multiValueHeaders"] or {})}
    return Answer(response["statusCode"], headers, content)


def _error(status: int, error: str, message: str) -> Answer:
    return _json(status, {"id": error, "message": message})


def _message(status: int, message: str) -> Answer:
    return _json(status, {"message": message})


def _json(status: int, body: dict[str, str]) -> Answer:
    content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    return Answer(status, {**_JSON, **HEADERS}, content)


def _headers(answer: Answer) -> list[tuple[str, str]]:
    pairs = [
        (name, str(one))
        for name, value in answer.headers.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    # These two never have a body, nor may they speak of one.
    if answer.status not in (204, 304):
        pairs.append(("Content-Length", str(len(answer.body))))
    return pairs


def serve(app: Chalice, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT; requests that came before are answered."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = create_server(
        Gateway(app),
        host=host,
        port=port,
        threads=_THREADS,
        connection_limit=_CONNECTIONS,
        channel_timeout=_IDLE_SECONDS,
        max_request_body_size=_BODY_READ_BYTES,
        max_request_header_size=_HEADERS_READ_BYTES,
        # select() knows no more than 1,024 files.
        asyncore_use_poll=True,
        ident=None,
    )
    threading.Thread(target=server.run, daemon=True).start()
    ended.wait()
    server.accepting = False
    deadline = time.monotonic() + _STOP_SECONDS
    while _busy(server) and time.monotonic() < deadline:
        time.sleep(0.05)


def _busy(server: Any) -> bool:
    channels = list(server.active_channels.values())
    return any(channel.requests or channel.total_outbufs_len for channel in channels)


def main(arguments: list[str] | None = None) -> None:
    """Serves the project's app."""
    parser = argparse.ArgumentParser(prog="python -m dev.gateway")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    # Building the app reads the environment.
    from app import app

    serve(app, options.host, options.port)


if __name__ == "__main__":
    main(sys.argv[1:])
