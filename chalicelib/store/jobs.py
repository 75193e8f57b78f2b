"""Reads and writes of jobs, and of the names that they take."""

from collections.abc import Callable
from typing import Any

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.update import Action

from chalicelib.domain.errors import JobNotFound, NameTaken
from chalicelib.domain.ids import JobKey
from chalicelib.store.models import COMMAND, AuditEntry, Job, JobName
from chalicelib.store.transactions import Writes, note, transaction, until_settled

# DynamoDB refuses to look for a longer or an empty key. Some emulators do not refuse; they find nothing.
_KEY_BYTES = 2048


def get_job(job_id: str) -> Job:
    """The job as it is now. Raises JobNotFound."""
    try:
        return Job.get(job_id, consistent_read=True)
    except DoesNotExist:
        raise JobNotFound(job_id) from None


def list_jobs(app_name: str | None) -> list[Job]:
    """All jobs, or those of one application, by AppName, then Name."""
    if not _can_be_key(app_name):
        return []
    if app_name is None:
        jobs = list(Job.scan())
    else:
        jobs = _read_jobs([key.JobId for key in Job.by_app.query(app_name)], app_name)
    return sorted(jobs, key=lambda job: (job.AppName, job.Name))


def _can_be_key(app_name: str | None) -> bool:
    return app_name is None or 0 < len(app_name.encode()) <= _KEY_BYTES


def _read_jobs(job_ids: list[str], app_name: str | None) -> list[Job]:
    """The jobs with these ids, as they are now, in this order.

    The index may be behind. A job that moved while we read may be in it twice: it comes once. One that
    left the application does not.
    """
    once = list(dict.fromkeys(job_ids))  # DynamoDB refuses a batch that has a key twice
    stored = {job.JobId: job for job in Job.batch_get(once, consistent_read=True)}
    found = (stored[job_id] for job_id in once if job_id in stored)
    return [job for job in found if app_name in (None, job.AppName)]


def page_jobs(
    app_name: str | None, after: JobKey | None, limit: int
) -> tuple[list[Job], JobKey | None]:
    """At most `limit` jobs, of all applications or one, and where the next page begins; None: no more.

    A job whose name changed since the index was written is where it was, as it is now.
    """
    if not _can_be_key(app_name):
        return [], None
    begin = after and {name: {"S": value} for name, value in after._asdict().items()}
    read: dict[str, Any] = {"limit": limit, "page_size": limit, "last_evaluated_key": begin}
    keys = Job.by_app.scan(**read) if app_name is None else Job.by_app.query(app_name, **read)
    places = [JobKey(key.AppName, key.Name, key.JobId) for key in keys]
    found = _read_jobs([place.JobId for place in places], app_name)
    return found, places[-1] if len(places) == limit else None


@until_settled
def create_job(job: Job, entry: AuditEntry) -> None:
    """Stores a new job and takes its name. Raises NameTaken."""
    with transaction() as writes:
        _take_name(writes, job)
        writes.save(job, Job.JobId.does_not_exist())
        note(writes, entry)


@until_settled
def edit_job(job_id: str, decide: Callable[[Job], AuditEntry]) -> Job:
    """Changes a job and returns it. If the job has a new name, takes that and frees the old one.

    `decide` sets the job's attributes and returns the audit entry, or raises. If another edit came
    between, we call it again with the new job. Raises JobNotFound, NameTaken.
    """
    job = get_job(job_id)
    old, revision = _name(job), job.Revision
    entry = decide(job)
    job.Revision = revision + 1
    renamed = (old.AppName, old.Name) != (job.AppName, job.Name)
    with transaction() as writes:
        if renamed:
            writes.delete(old, JobName.JobId == job_id)
            _take_name(writes, job)
        note(writes, entry)
        writes.update(job, _command_of(job), Job.Revision == revision)
    return job


def _command_of(job: Job) -> list[Action]:
    """Update actions for all but the Executors: to those, starts append at any time."""
    return [_set_or_remove(job, name) for name in (*COMMAND, "Revision", "Moves")]


def _set_or_remove(job: Job, name: str) -> Action:
    """An optional attribute is absent if it is empty."""
    attribute, value = getattr(Job, name), getattr(job, name)
    action: Action = attribute.set(value) if value or not attribute.null else attribute.remove()
    return action


@until_settled
def delete_job(job_id: str, decide: Callable[[Job], AuditEntry]) -> None:
    """Deletes a job and frees its name; its executions stay.

    `decide` returns the audit entry, or raises. Raises JobNotFound.
    """
    job = get_job(job_id)
    entry = decide(job)
    with transaction() as writes:
        writes.delete(_name(job), JobName.JobId == job_id)
        writes.delete(job, Job.Revision == job.Revision)
        note(writes, entry)


def _take_name(writes: Writes, job: Job) -> None:
    writes.save(_name(job), JobName.JobId.does_not_exist(), otherwise=NameTaken(job.Name))


def _name(job: Job) -> JobName:
    return JobName(job.AppName, job.Name, JobId=job.JobId)
