"""Routes of saved jobs."""

from chalice import Blueprint, Response

from chalicelib.domain.access import Caller, Permission
from chalicelib.routes.access import needs
from chalicelib.routes.http import answer_json, answers_errors, read_body
from chalicelib.schemas.jobs import JobRequest, JobsRequest
from chalicelib.schemas.parsing import parse, parse_query
from chalicelib.services import jobs

routes = Blueprint(__name__)


@routes.route("/api/jobs", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def list_jobs(caller: Caller) -> Response:
    """All jobs, or those of `?AppName=`; with `?Limit=` a page of them."""
    request = parse_query(routes.current_request.query_params or {}, JobsRequest)
    if request.Limit or request.Next:
        page = jobs.list_page(caller, request)
        return answer_json(page, smaller="ask for a page with a smaller ?Limit=")
    found = jobs.list_jobs(caller, request.AppName)
    return answer_json(found, smaller="ask for pages with ?Limit=100, or for one ?AppName=")


@routes.route("/api/jobs", methods=["POST"])
@answers_errors
@needs(Permission.EDIT, routes)
def create_job(caller: Caller) -> Response:
    """Saves a new job."""
    return answer_json(
        jobs.create_job(caller, parse(read_body(routes.current_request), JobRequest))
    )


@routes.route("/api/jobs/{job_id}", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def get_job(caller: Caller, job_id: str) -> Response:
    """One job."""
    return answer_json(jobs.get_job(caller, job_id))


@routes.route("/api/jobs/{job_id}", methods=["PUT"])
@answers_errors
@needs(Permission.EDIT, routes)
def edit_job(caller: Caller, job_id: str) -> Response:
    """Replaces a job."""
    return answer_json(
        jobs.edit_job(caller, job_id, parse(read_body(routes.current_request), JobRequest))
    )


@routes.route("/api/jobs/{job_id}", methods=["DELETE"])
@answers_errors
@needs(Permission.EDIT, routes)
def delete_job(caller: Caller, job_id: str) -> Response:
    """Deletes a job."""
    jobs.delete_job(caller, job_id)
    return Response("", status_code=202)
