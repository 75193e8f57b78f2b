"""What every route shares: errors become answers here, in one place, and each request has an id."""

import functools
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from chalice import Chalice, Response
from chalice.app import Request

from chalicelib.config import settings
from chalicelib.errors import AppjobsError, InvalidRequest
from chalicelib.schemas import ErrorAnswer

log = structlog.stdlib.get_logger(__name__)

View = Callable[..., Response]
_JSON = {"Content-Type": "application/json"}


def json(body: Any, status: int = 200) -> Response:
    """An answer in JSON, UTF-8, non-ASCII characters unescaped (chalice would escape them)."""
    return Response(msgspec.json.encode(body).decode(), dict(_JSON), status)


def error(id: str, message: str, status: int) -> Response:
    """An error's answer."""
    return json(ErrorAnswer(id, message), status)


def answers_errors(view: View) -> View:
    """Wraps a view so that what it raises becomes an answer: domain errors theirs, all else a 500."""

    @functools.wraps(view)
    def answering(*args: Any, **kwargs: Any) -> Response:
        try:
            return view(*args, **kwargs)
        except AppjobsError as refusal:
            if refusal.status < 500:
                return error(refusal.id, refusal.message, refusal.status)
            return _unexpected()
        except Exception:  # noqa: BLE001 - the answer must have our shape; the log has the rest
            return _unexpected()

    return answering


def _unexpected() -> Response:
    log.exception("request failed")
    request_id = structlog.contextvars.get_contextvars()["request_id"]
    return error("internal_error", request_id, 500)


def in_context(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Middleware: a request id in every log line, one line per request, chalice's errors in our words."""
    request_id = request.context.get("requestId") or str(uuid.uuid4())
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = _in_our_words(get_response(request))
        response.headers["X-Request-Id"] = request_id
        path = request.context.get("path", request.path)
        principal = (request.context.get("authorizer") or {}).get("principalId")
        log.info(
            "request",
            method=request.method,
            path=path,
            status=response.status_code,
            token_id=principal,
        )
    return response


def _in_our_words(response: Response) -> Response:
    """Chalice refuses a method or media type with a body of its own shape."""
    if isinstance(response.body, dict) and "Message" in response.body:
        message = response.body["Message"]
        if response.status_code == 415:
            message += "; send it as application/json"
        refusal = error(InvalidRequest.id, message, response.status_code)
        response.body = refusal.body
        response.headers.update(_JSON)
    return response


def allow_origins(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Middleware: lets pages of the configured origins read the answer."""
    response = get_response(request)
    origin = request.headers.get("origin")
    if origin and settings.cors_origins:
        response.headers["Vary"] = "Origin"
        if "*" in settings.cors_origins or origin in settings.cors_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Content-Disposition, X-Request-Id"
    return response


def add_preflights(app: Chalice) -> None:
    """Answers a browser's preflight request on every route; `allow_origins` says who may go on.

    Chalice's own CORS knows a single origin.
    """
    for path, methods in list(app.routes.items()):
        headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": "600",
        }
        name = f"preflight {path}"
        app.route(path, methods=["OPTIONS"], name=name)(_preflight(headers))


def _preflight(headers: dict[str, str]) -> View:
    def preflight(**path: str) -> Response:
        return Response("", dict(headers), 204)

    return preflight
