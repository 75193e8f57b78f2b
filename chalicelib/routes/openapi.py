"""The route of the API's own description."""

from chalice import Blueprint, Response

from chalicelib.routes.http import answers_errors, json
from chalicelib.services import openapi

routes = Blueprint(__name__)


@routes.route("/api/openapi.json", methods=["GET"])
@answers_errors
def describe() -> Response:
    """The OpenAPI document."""
    return json(openapi.document())
