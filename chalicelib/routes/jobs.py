"""Routes of saved jobs."""

from chalice import Blueprint, Response

from chalicelib.routes.http import answers_errors, json
from chalicelib.schemas import JobRequest, parse
from chalicelib.services import jobs

routes = Blueprint(__name__)


@routes.route("/api/jobs", methods=["GET"])
@answers_errors
def list_jobs() -> Response:
    """All jobs, or those of `?AppName=`."""
    query = routes.current_request.query_params or {}
    return json(jobs.list_jobs(query.get("AppName") or None))


@routes.route("/api/jobs", methods=["POST"])
@answers_errors
def create_job() -> Response:
    """Saves a new job."""
    return json(jobs.create_job(parse(routes.current_request.raw_body, JobRequest)))


@routes.route("/api/jobs/{job_id}", methods=["GET"])
@answers_errors
def get_job(job_id: str) -> Response:
    """One job."""
    return json(jobs.get_job(job_id))


@routes.route("/api/jobs/{job_id}", methods=["PUT"])
@answers_errors
def edit_job(job_id: str) -> Response:
    """Replaces a job."""
    return json(jobs.edit_job(job_id, parse(routes.current_request.raw_body, JobRequest)))


@routes.route("/api/jobs/{job_id}", methods=["DELETE"])
@answers_errors
def delete_job(job_id: str) -> Response:
    """Deletes a job."""
    jobs.delete_job(job_id)
    return Response("", status_code=202)
