"""The route of the API's own description."""

from chalice import Blueprint, Response

from chalicelib.domain.access import Caller, Permission
from chalicelib.openapi.document import document
from chalicelib.routes.access import needs
from chalicelib.routes.http import answer_json, answers_errors

routes = Blueprint(__name__)


@routes.route("/api/openapi.json", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def describe(caller: Caller) -> Response:
    """The OpenAPI document."""
    return answer_json(document())
