"""Routes of executions: start, inspect, log, history."""

from functools import partial

from chalice import Blueprint, Response

from chalicelib.domain.access import Caller, Permission
from chalicelib.domain.errors import InvalidRequest
from chalicelib.routes.access import needs
from chalicelib.routes.http import (
    answer_bytes,
    answer_json,
    answers_errors,
    may_answer_bytes,
    read_body,
)
from chalicelib.schemas.executions import StartRequest
from chalicelib.schemas.history import HistoryRequest
from chalicelib.schemas.parsing import parse, parse_query
from chalicelib.services import downloads, history, inspection, starts

routes = Blueprint(__name__)


@routes.route("/api/jobs/{job_id}/start", methods=["POST"])
@answers_errors
@needs(Permission.START, routes)
def start(caller: Caller, job_id: str) -> Response:
    """Starts a job on a list of containers."""
    request = parse(read_body(routes.current_request), StartRequest)
    return answer_json(starts.start_job(caller, job_id, request))


@routes.route("/api/jobs/{job_id}/inspect/{executor_id}", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def inspect(caller: Caller, job_id: str, executor_id: str) -> Response:
    """What became of each target."""
    return answer_json(inspection.inspect_execution(caller, job_id, executor_id))


@routes.route("/api/jobs/{job_id}/log/{executor_id}", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def log(caller: Caller, job_id: str, executor_id: str) -> Response:
    """The log of one target; a long one as a redirect to the object store."""
    container_id = (routes.current_request.query_params or {}).get("ContainerId")
    if not container_id:
        raise InvalidRequest("ContainerId is missing; ask for the log as ?ContainerId=<id>")
    request = routes.current_request
    found = downloads.read_log(
        caller, job_id, executor_id, container_id, partial(may_answer_bytes, request)
    )
    if found.content is None:
        return Response("", {"Location": found.link}, 302)
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Disposition": f'attachment; filename="{found.filename}"',
    }
    return answer_bytes(request, found.content, headers)


@routes.route("/api/jobs/{job_id}/history", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def list_executions(caller: Caller, job_id: str) -> Response:
    """The executions of a job, the newest first, in pages."""
    request = parse_query(routes.current_request.query_params or {}, HistoryRequest)
    return answer_json(history.read_history(caller, job_id, request))
