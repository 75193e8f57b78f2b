"""Reads of the audit; entries are written in the transactions of what they tell."""

import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from chalicelib.store.models import AuditEntry

_SECOND = 1_000_000  # microseconds


def key(now: float) -> tuple[str, str]:
    """The Day and At of an entry that is made now."""
    at = f"{moment(now)}-{secrets.token_hex(4)}"
    return _day(at).isoformat(), at


def moment(seconds: float) -> str:
    """Where entries of that time begin, in the order of At."""
    return f"{int(seconds * _SECOND):016}"


def earlier(at: str, seconds: float) -> str:
    """The moment so long before an entry, or before another moment."""
    return f"{max(int(at.partition('-')[0]) - int(seconds * _SECOND), 0):016}"


def before_all_of(moment: str) -> str:
    """The At for a page that ends there: it sorts before every entry from that moment on."""
    return f"{moment}-{'0' * 8}"


def seconds(entry: AuditEntry) -> float:
    """When the entry was made."""
    return int(entry.At.partition("-")[0]) / _SECOND


def newest_first(since: str, before: str, job_id: str | None) -> Iterator[AuditEntry]:
    """The entries, of one job or of all, with `since` <= At < `before`."""
    if since > before:
        return iter(())  # DynamoDB refuses a span that ends before it begins
    found = _of_job(job_id, since, before) if job_id else _day_by_day(since, before)
    return (entry for entry in found if entry.At != before)


def _of_job(job_id: str, since: str, before: str) -> Iterator[AuditEntry]:
    between = AuditEntry.At.between(since, before)
    yield from AuditEntry.by_job.query(job_id, between, scan_index_forward=False)


def _day_by_day(since: str, before: str) -> Iterator[AuditEntry]:
    between = AuditEntry.At.between(since, before)
    first, day = _day(since), _day(before)
    while day >= first:
        yield from AuditEntry.query(
            day.isoformat(), between, consistent_read=True, scan_index_forward=False
        )
        day -= timedelta(days=1)


def _day(at: str) -> date:
    return datetime.fromtimestamp(int(at.partition("-")[0]) / _SECOND, UTC).date()
