"""The audit: what is noted of each action, and reading it."""

import time
from enum import StrEnum
from typing import Any

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.access import Caller
from chalicelib.schemas.audit import AuditAnswer, AuditPage, AuditRequest
from chalicelib.store.models import AuditEntry, Job, Token

PAGE_ENTRIES = 100
# At most this many entries are read for a page, those that are filtered out included.
MAX_READ_ENTRIES = 5000
DAY_SECONDS = 86_400
# At most this many days are read for a page: each is a query, and most days may have no entries.
MAX_DAYS = 60
# How far back the entries are searched if the request does not say.
_SEARCHED_SECONDS = 30 * DAY_SECONDS
# The clock of the Lambda that wrote the newest entry may be ahead of ours.
_CLOCKS_DIFFER_SECONDS = 60
# What an answer shows as it is stored.
_SHOWN = tuple(name for name in AuditAnswer.__struct_fields__ if name != "Time")


class Action(StrEnum):
    """What can be done; reading is not noted."""

    CREATE_JOB = "job.create"
    EDIT_JOB = "job.edit"
    DELETE_JOB = "job.delete"
    START_JOB = "job.start"
    CREATE_TOKEN = "token.create"
    REVOKE_TOKEN = "token.revoke"


def describe_job(caller: Caller, action: Action, job: Job, **more: Any) -> AuditEntry:
    """The entry which says that the caller does this to the job."""
    return _entry(
        Action=action,
        Actor=caller.name,
        TokenId=caller.token_id,
        SourceIp=caller.source_ip,
        RequestId=caller.request_id,
        Name=job.Name,
        AppName=job.AppName,
        JobId=job.JobId,
        **more,
    )


def describe_token(actor: str, action: Action, token: Token, token_id: str) -> AuditEntry:
    """The entry which says that someone on the command line does this to the token."""
    rights = {
        "Id": token_id,
        "Role": token.Role,
        "Apps": list(token.Apps),
        "MayRunAsRoot": token.MayRunAsRoot,
    }
    return _entry(Action=action, Actor=actor, Name=token.Name, Token=rights)


def _entry(**what: Any) -> AuditEntry:
    now = time.time()
    day, at = store.audit.make_key(now)
    return AuditEntry(day, at, ExpiresAt=int(now + settings.audit_retention_seconds), **what)


def read_page(caller: Caller, request: AuditRequest) -> AuditPage:
    """The newest entries that the caller may see and the request asks for.

    A page may have few entries, even none, although there are more: there may be more if it has a Next.
    """
    since, before = _span(request)
    # One query finds all that was done to a job.
    first = (
        since if request.JobId else max(since, store.audit.go_back(before, MAX_DAYS * DAY_SECONDS))
    )
    shown: list[AuditAnswer] = []
    last = ""
    for read, entry in enumerate(store.audit.list_newest_first(first, before, request.JobId)):
        if len(shown) == PAGE_ENTRIES or read == MAX_READ_ENTRIES:
            return AuditPage(shown, last)
        if _is_wanted(entry, caller, request):
            shown.append(_show(entry))
        last = entry.At
    return AuditPage(shown, None if first == since else store.audit.before_all_of(first))


def _span(request: AuditRequest) -> tuple[str, str]:
    """The moments between which the request asks for entries, within those that are kept."""
    now = time.time()
    newest = now + _CLOCKS_DIFFER_SECONDS
    until = newest if request.Until is None else min(request.Until, newest)
    since = until - _SEARCHED_SECONDS if request.Since is None else request.Since
    before = store.audit.to_moment(max(until, 0))
    oldest = store.audit.to_moment(max(since, now - settings.audit_retention_seconds))
    return oldest, min(request.Next or before, before)


def _is_wanted(entry: AuditEntry, caller: Caller, request: AuditRequest) -> bool:
    apps = {entry.AppName, entry.MovedFrom}
    if caller.apps and not any(caller.sees(app) for app in apps if app is not None):
        return False
    return request.AppName is None or request.AppName in apps


def _show(entry: AuditEntry) -> AuditAnswer:
    fields = {name: getattr(entry, name) for name in _SHOWN}
    return AuditAnswer(Time=store.audit.get_time(entry), **fields)
