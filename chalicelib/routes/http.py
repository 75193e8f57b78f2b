"""What every route shares: here errors become answers, and each request gets an id."""

import base64
import functools
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from chalice import Chalice, Response
from chalice.app import Request

from chalicelib.config import settings
from chalicelib.domain.errors import AppjobsError, InvalidRequest, UnsupportedType
from chalicelib.schemas.errors import ErrorAnswer

log = structlog.stdlib.get_logger(__name__)

View = Callable[..., Response]
_JSON = {"Content-Type": "application/json"}
# No program should guess another type, and no cache should keep what only the caller may see.
_ON_ALL = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
# The headers that a page of another origin may read.
_READABLE = "Content-Disposition, Retry-After, X-Request-Id"
# Lambda's limit for an answer, less 8 KB for its headers. The body counts as the JSON string that Lambda
# makes of it.
_LARGEST_BYTES = 6_291_556 - 8192


class Bytes(Response):  # type: ignore[misc]
    """An answer of any bytes. It goes to the gateway in base64, which makes it a third longer.

    So JSON must not use it. Chalice would choose base64 by the type, and would refuse a client that sends
    no `Accept`.
    """

    def to_dict(self, binary_types: list[str] | None = None) -> dict[str, Any]:
        """The answer as the gateway wants it."""
        answer: dict[str, Any] = super().to_dict([])
        return {**answer, "body": base64.b64encode(self.body).decode(), "isBase64Encoded": True}


def answer_json(body: Any, status: int = 200, smaller: str = "ask for less") -> Response:
    """An answer in JSON, UTF-8, non-ASCII characters unescaped (chalice would escape them).

    Raises InvalidRequest if the answer is too large for Lambda; `smaller` says how to ask for less.
    """
    text = msgspec.json.encode(body).decode()
    if not _fits(text):
        raise InvalidRequest(f"the answer would be larger than 6 MB; {smaller}")
    return Response(text, dict(_JSON), status)


def read_body(request: Request) -> bytes:
    """The body of a request that must have one. Raises InvalidRequest, UnsupportedType."""
    content = bytes(request.raw_body)
    if not content:
        raise InvalidRequest("the body is empty; it must be a JSON object")
    kind = str(request.headers.get("content-type", "application/json"))
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedType(f"the Content-Type is {kind}; send the body as application/json")
    return content


def may_answer_bytes(request: Request, content: bytes) -> bool:
    """Whether these bytes, which are not too many in base64, can be the answer.

    The gateway decodes base64 for the types that the client accepts. Nobody documents what it does if the
    client does not say what it accepts. So such a client gets text, which is always right.
    """
    if "accept" in request.headers:
        return True
    try:
        return _fits(content.decode())
    except UnicodeDecodeError:
        return False


def answer_bytes(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """An answer with these bytes, if that is possible."""
    if "accept" in request.headers:
        return Bytes(content, headers)
    return Response(content.decode(), headers)


def _fits(text: str) -> bool:
    return len(msgspec.json.encode(text)) <= _LARGEST_BYTES


def answer_error(id: str, message: str, status: int) -> Response:
    """An error's answer."""
    return answer_json(ErrorAnswer(id, message), status)


def answers_errors(view: View) -> View:
    """Wraps a view: a domain error becomes the error's own answer, every other exception a 500."""

    @functools.wraps(view)
    def answering(*args: Any, **kwargs: Any) -> Response:
        try:
            return view(*args, **kwargs)
        except AppjobsError as refusal:
            if refusal.status == AppjobsError.status:
                return _unexpected()
            answer = answer_error(refusal.id, refusal.message, refusal.status)
            if refusal.retry_seconds:
                answer.headers["Retry-After"] = str(refusal.retry_seconds)
            return answer
        except Exception:  # noqa: BLE001 - the answer must have our shape; the log has the rest
            return _unexpected()

    return answering


def _unexpected() -> Response:
    log.exception("request failed")
    request_id = structlog.contextvars.get_contextvars()["request_id"]
    return answer_error("internal_error", request_id, 500)


def add_context(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Middleware: a request id in every log line, one line per request, chalice's errors in our words."""
    request_id = request.context.get("requestId") or str(uuid.uuid4())
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = _in_our_words(get_response(request))
        response.headers.update(_ON_ALL)
        response.headers["X-Request-Id"] = request_id
        path = request.context.get("path", request.path)
        principal = (request.context.get("authorizer") or {}).get("principalId")
        log.info(
            "request",
            method=request.method,
            path=path,
            status=response.status_code,
            token_id=principal,
            source_ip=request.context["identity"]["sourceIp"],
        )
    return response


def _in_our_words(response: Response) -> Response:
    """If chalice itself refuses a method, the body has another shape: gives it ours."""
    if isinstance(response.body, dict) and "Message" in response.body:
        refusal = answer_error(InvalidRequest.id, response.body["Message"], response.status_code)
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
            response.headers["Access-Control-Expose-Headers"] = _READABLE
    return response


def prepare_app(app: Chalice) -> None:
    """Gives each GET a HEAD beside it, and leaves types to `read_body` and `Bytes`.

    Chalice would treat the types of all routes alike. A HEAD's answer still has its body here: the server
    in front of us drops the body and keeps its length.
    """
    app.api.binary_types = []
    for path, methods in list(app.routes.items()):
        if "GET" in methods:
            app.route(path, methods=["HEAD"], name=f"head {path}")(methods["GET"].view_function)
        for route in methods.values():
            route.content_types = []


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
        app.route(path, methods=["OPTIONS"], name=name, content_types=[])(_preflight(headers))


def _preflight(headers: dict[str, str]) -> View:
    def preflight(**path: str) -> Response:
        return Response("", dict(headers), 204)

    return preflight
