"""Routes of saved jobs."""

from chalice import Blueprint, Response

from chalicelib.domain.access import Caller, Permission
from chalicelib.routes.access import needs
from chalicelib.routes.http import answer_json, answers_errors, read_body
from chalicelib.schemas.jobs import JobRequest
from chalicelib.schemas.parsing import parse
from chalicelib.services import jobs

routes = Blueprint(__name__)


@routes.route("/api/jobs", methods=["GET"])
@answers_errors
@needs(Permission.READ, routes)
def list_jobs(caller: Caller) -> Response:
    """All jobs, or those of `?AppName=`."""
    query = routes.current_request.query_params or {}
    app_name = query.get("AppName")
    smaller = "read its jobs one by one" if app_name else "ask for one application with ?AppName="
    return answer_json(jobs.list_jobs(caller, app_name or None), smaller=smaller)


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
