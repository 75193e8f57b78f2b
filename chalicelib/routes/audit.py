"""The route of the audit."""

from chalice import Blueprint, Response

from chalicelib.domain.access import Caller, Permission
from chalicelib.routes.access import needs
from chalicelib.routes.http import answer_json, answers_errors
from chalicelib.schemas.audit import AuditRequest
from chalicelib.schemas.parsing import parse_query
from chalicelib.services import audit

routes = Blueprint(__name__)


@routes.route("/api/audit", methods=["GET"])
@answers_errors
@needs(Permission.AUDIT, routes)
def read_audit(caller: Caller) -> Response:
    """Who did what, the newest first, in pages."""
    request = parse_query(routes.current_request.query_params or {}, AuditRequest)
    return answer_json(audit.read_page(caller, request))
