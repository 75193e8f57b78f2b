"""MiniStack behind a door: `.local/ministack/bin/python -m dev.ministack_door`.

With AUTH=true MiniStack checks the signatures and policies of users and roles. But it lets the account's
owner in without a signature, only by the name of the key. It has paths of its own that wipe it or show
what it has. And web pages may read its answers: any page in the developer's browser. The door stops all
three.

It runs in MiniStack's environment, which has nothing of ours.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from ministack import app as ministack
from ministack.core import sigv4
from ministack.core.iam_evaluator import (
    ResolvedCredential,
    find_iam_access_key_account,
    is_root_access_key,
    resolve_credential,
)
from ministack.core.router import extract_access_key_id

HEALTH = "/_ministack/health"
# Of all APIs that are deployed here.
_STAGE = "/v1/"
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_REFUSAL = (
    b"Only calls that are signed are answered here: `make run` leaves the keys in .local/env\n"
)


def behind_a_door(app: App) -> App:
    """The application, for the requests that the door lets in."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = await _body(receive)
            if lets_in(scope, body):
                await app(scope, _once_more(body, receive), send)
            else:
                await _refuse(send)

    return door


def lets_in(scope: Scope, body: bytes) -> bool:
    """Whether the sender of a request may ask."""
    path = scope["path"]
    if path.startswith(("/_ministack", "/_localstack")):
        return bool(path == HEALTH and scope["method"] == "GET")
    headers = _headers(scope)
    if is_to_an_api(headers.get("host", ""), path):
        return True
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    key = extract_access_key_id(headers, query)
    if key == os.environ["AWS_ACCESS_KEY_ID"]:
        return is_signed_by_us(scope, headers, query, body)
    return is_of_a_user_or_role(key)


def is_to_an_api(host: str, path: str) -> bool:
    """Whether MiniStack passes it to an API that is deployed here: those have their own authorizer.

    Any page can use a name that only looks like an API's: for browsers, all of `.localhost` is this
    machine. And some of MiniStack's own paths come before the APIs, whatever the host is.
    """
    return bool(ministack._EXECUTE_API_RE.fullmatch(host)) and path.startswith(_STAGE)


def is_signed_by_us(
    scope: Scope, headers: dict[str, str], query: dict[str, list[str]], body: bytes
) -> bool:
    """Whether the sender has our key's secret."""
    presigned = "authorization" not in headers
    parse = sigv4.parse_query_signature if presigned else sigv4.parse_header_signature
    signature = parse(query if presigned else headers)
    # A tuple says what it lacks.
    if isinstance(signature, tuple):
        return False
    path = scope["raw_path"].decode("latin-1")
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    failure = sigv4.header_signature_failure(
        signature, secret, scope["method"], path, query, headers, body, presigned=presigned
    )
    return failure is None and not _is_old(signature, query, presigned)


def _is_old(signature: Any, query: dict[str, list[str]], presigned: bool) -> bool:
    if not presigned:
        return sigv4.request_time_failure(signature) is not None
    expires = query.get("X-Amz-Expires", ["0"])[0]
    return bool(sigv4.presigned_request_is_expired(signature.amz_date, expires))


def is_of_a_user_or_role(key: str) -> bool:
    """Whether MiniStack knows that key. If it does, it checks the signature itself."""
    # `test` and the ids of accounts too.
    if is_root_access_key(key):
        return False
    credential = resolve_credential(key, find_iam_access_key_account(key))
    return isinstance(credential, ResolvedCredential)


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        value = sigv4.decode_header_value(raw_value)
        # This is how headers that come twice are signed.
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


async def _body(receive: Receive) -> bytes:
    """The whole body, or what came of it if the client has gone."""
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _once_more(body: bytes, receive: Receive) -> Receive:
    """Gives the body again that was read already, then goes on."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(_REFUSAL)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})


if __name__ == "__main__":
    ministack.app = behind_a_door(ministack.app)
    ministack.main()
