"""Saved jobs: create, list, edit, delete."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from chalicelib import store
from chalicelib.clients import sealing
from chalicelib.config import settings
from chalicelib.domain import labels
from chalicelib.domain.access import Caller
from chalicelib.domain.ids import JobKey, parse_job_id
from chalicelib.schemas.jobs import JobAnswer, JobRequest, JobsPage, JobsRequest
from chalicelib.schemas.pages import DEFAULT_LIMIT, decode_next, encode_next
from chalicelib.services import audit
from chalicelib.services.audit import Action
from chalicelib.store.executions import LISTED_EXECUTORS
from chalicelib.store.models import FIELDS, AuditEntry, Job

# How many of its former applications a job remembers.
_MOVES = 100


def list_jobs(caller: Caller, app_name: str | None) -> list[JobAnswer]:
    """All jobs that the caller sees, or those of one application, by AppName, then Name."""
    return [
        show_job(caller, job)
        for app in _apps_from(caller, app_name, None)
        for job in store.jobs.list_jobs(app)
    ]


def list_page(caller: Caller, request: JobsRequest) -> JobsPage:
    """A page of the jobs that the caller sees; it may be empty although there are more.

    The jobs of an application are in the order of their names.
    """
    limit = request.Limit or DEFAULT_LIMIT
    after = decode_next(request.Next) if request.Next else None
    shown: list[JobAnswer] = []
    for app in _apps_from(caller, request.AppName, after):
        begin = after if after and app in (None, after.AppName) else None
        found, last = store.jobs.page_jobs(app, begin, limit - len(shown))
        shown += [show_job(caller, job) for job in found if caller.sees(job.AppName)]
        if last:
            return JobsPage(shown, encode_next(last))
    return JobsPage(shown)


def _apps_from(caller: Caller, app_name: str | None, after: JobKey | None) -> Sequence[str | None]:
    """The applications that a page may have jobs of, one after the other; None: all of them at once."""
    if app_name is None and not caller.apps:
        return [None]
    apps = sorted(caller.apps) if app_name is None else [labels.normalize(app_name.strip())]
    return [app for app in apps if caller.sees(app) and (not after or app >= after.AppName)]


def get_job(caller: Caller, job_id: str) -> JobAnswer:
    """One job. Raises JobNotFound."""
    job = store.jobs.get_job(parse_job_id(job_id))
    caller.require_visible(job_id, job.AppName)
    return show_job(caller, job)


def create_job(caller: Caller, request: JobRequest) -> JobAnswer:
    """Saves a new job, its secrets sealed. Raises NameTaken, Forbidden."""
    _allow(caller, request)
    job = Job(str(uuid.uuid4()), Revision=1, Executors=[])
    plain = request.SecretArgs or []
    _apply(request, job, [sealing.seal(job.JobId, secret) for secret in plain])
    store.jobs.create_job(job, audit.describe_job(caller, Action.CREATE_JOB, job))
    return show_job(caller, job)


def edit_job(caller: Caller, job_id: str, request: JobRequest) -> JobAnswer:
    """Replaces a job; masks among its secrets mean the stored ones.

    Raises JobNotFound, NameTaken, Forbidden, and InvalidRequest for a mask that matches no secret.
    """

    def decide(job: Job) -> AuditEntry:
        caller.require_visible(job_id, job.AppName)
        _allow(caller, request)
        stored = sealed = sealing.unpack(job.Sealed)
        if not isinstance(request.SecretArgs, UnsetType):
            sealed = sealing.merge(job_id, stored, request.SecretArgs)
        changes = _changes(job, request, sealed != stored)
        if request.AppName != job.AppName:
            job.Moves = _moves(job)
        _apply(request, job, sealed)
        return audit.describe_job(caller, Action.EDIT_JOB, job, **changes)

    return show_job(caller, store.jobs.edit_job(parse_job_id(job_id), decide))


def delete_job(caller: Caller, job_id: str) -> None:
    """Deletes a job; what it started goes on. Raises JobNotFound."""

    def decide(job: Job) -> AuditEntry:
        caller.require_visible(job_id, job.AppName)
        return audit.describe_job(caller, Action.DELETE_JOB, job)

    store.jobs.delete_job(parse_job_id(job_id), decide)


def _allow(caller: Caller, request: JobRequest) -> None:
    caller.require_app(request.AppName)
    caller.require_root(request.Privileged, request.User)


def show_job(caller: Caller, job: Job) -> JobAnswer:
    """The job as answers show it, with those of its executions that the caller may inspect."""
    oldest = time.time() - settings.retention_seconds
    return JobAnswer(
        JobId=job.JobId,
        **{name: getattr(job, name) for name in FIELDS},
        SecretArgs=[sealing.mask(sealed) for sealed in sealing.unpack(job.Sealed)],
        Executors=sorted(
            started
            for started in job.Executors
            if float(started) >= oldest and caller.sees(_app_of(job, started))
        )[-LISTED_EXECUTORS:],
    )


def _app_of(job: Job, executor_id: str) -> str:
    """The application that the job was in at that start."""
    former = (app for app, last in job.Moves or [] if executor_id <= last)
    return str(next(former, job.AppName))


def _moves(job: Job) -> list[list[str]]:
    last = max([f"{time.time():.6f}", *job.Executors])
    return [*(job.Moves or []), [job.AppName, last]][-_MOVES:]


def _changes(job: Job, request: JobRequest, secrets_changed: bool) -> dict[str, Any]:
    """What the audit notes of an edit: the names of the changed fields, and the former application."""
    changed = [name for name in FIELDS if getattr(request, name) not in (UNSET, getattr(job, name))]
    moved = {"MovedFrom": job.AppName} if "AppName" in changed else {}
    return {"Fields": changed + ["SecretArgs"] * secrets_changed, **moved}


def _apply(request: JobRequest, job: Job, sealed: list[sealing.Sealed]) -> None:
    """Sets the job's fields. If the request leaves a field out, that field stays as it is."""
    for name in FIELDS:
        sent = getattr(request, name)
        if sent is not UNSET:
            setattr(job, name, sent)
    job.Sealed = sealing.pack(sealed)
