"""Who calls: the authorizer before every route, and what a route needs of its caller."""

import functools
import json
from collections.abc import Callable

import msgspec
import structlog
from chalice import AuthResponse, Blueprint, Chalice, Response
from chalice.app import AuthRequest, ChaliceAuthorizer, Request

from chalicelib.domain.access import Caller, Permission
from chalicelib.domain.errors import Forbidden, Unauthorized
from chalicelib.services import tokens

log = structlog.stdlib.get_logger(__name__)

# API Gateway keeps the authorizer's answer this long, so a revoked token still works for that time. `make
# run` keeps nothing.
CACHE_SECONDS = 60
View = Callable[..., Response]


def authorize(request: AuthRequest) -> AuthResponse:
    """Lets a valid token through to all routes, with its caller as context.

    The gateway keeps this answer for all of a token's requests, whatever their route. So it cannot depend
    on the route: `needs` checks what the caller may do there.
    """
    try:
        caller = tokens.authenticate(request.token)
    except (Unauthorized, Forbidden) as refusal:
        # Unauthorized comes only if the gateway and we differ about what a token looks like.
        log.warning("refused", reason=refusal.message)
        return AuthResponse(routes=[], principal_id="nobody")
    # ASCII: the gateway passes the context on as it would a header.
    context = {"caller": json.dumps(msgspec.to_builtins(caller))}
    return AuthResponse(routes=["*"], principal_id=caller.token_id, context=context)


def guard(app: Chalice, authorizer: ChaliceAuthorizer) -> None:
    """Puts the authorizer before every route that the app has so far.

    Raises TypeError if a route does not say what it `needs`: everybody could use it.
    """
    for path, methods in app.routes.items():
        for route in methods.values():
            if not hasattr(route.view_function, "permission"):
                raise TypeError(f"{path} must declare a permission with @needs")
            route.authorizer = authorizer


def needs(permission: Permission, routes: Blueprint) -> Callable[[View], View]:
    """Declares which permission a view needs, and passes the caller to it as first argument."""

    def declare(view: View) -> View:
        @functools.wraps(view)
        def checked(**path: str) -> Response:
            caller = _caller(routes.current_request)
            with structlog.contextvars.bound_contextvars(token=caller.name):
                try:
                    caller.require(permission)
                    return view(caller, **path)
                except Forbidden as refusal:
                    log.warning("refused", reason=refusal.message)
                    raise

        checked.permission = permission  # type: ignore[attr-defined]
        return checked

    return declare


def _caller(request: Request) -> Caller:
    caller = msgspec.json.decode(request.context["authorizer"]["caller"], type=Caller)
    return msgspec.structs.replace(
        caller,
        source_ip=request.context["identity"]["sourceIp"],
        request_id=structlog.contextvars.get_contextvars()["request_id"],
    )
