"""Reads the audit. An entry is written in the same transaction as the change that it describes."""

import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from chalicelib.store.models import AuditEntry

_MICROSECONDS = 1_000_000  # in a second


def make_key(now: float) -> tuple[str, str]:
    """The Day and At of an entry that is made now."""
    microseconds = int(now * _MICROSECONDS)
    at = f"{_to_moment(microseconds)}-{secrets.token_hex(4)}"
    return _get_day(microseconds).isoformat(), at


def to_moment(seconds: float) -> str:
    """The beginning of an At: it sorts before all entries of that time and later."""
    return _to_moment(int(seconds * _MICROSECONDS))


def go_back(at: str, seconds: float) -> str:
    """The moment that long before an entry, or before another moment."""
    return _to_moment(max(_parse(at) - int(seconds * _MICROSECONDS), 0))


def before_all_of(moment: str) -> str:
    """An At that sorts before every entry from that moment on. As a Next, it asks for earlier ones."""
    return f"{moment}-{'0' * 8}"


def get_time(entry: AuditEntry) -> float:
    """When the entry was made, in seconds."""
    return _parse(entry.At) / _MICROSECONDS


def list_newest_first(since: str, before: str, job_id: str | None) -> Iterator[AuditEntry]:
    """The entries, of one job or of all, with `since` <= At < `before`."""
    if since > before:
        return iter(())  # DynamoDB refuses a span that ends before it begins
    found = _list_of_job(job_id, since, before) if job_id else _list_day_by_day(since, before)
    return (entry for entry in found if entry.At != before)


def _list_of_job(job_id: str, since: str, before: str) -> Iterator[AuditEntry]:
    between = AuditEntry.At.between(since, before)
    yield from AuditEntry.by_job.query(job_id, between, scan_index_forward=False)


def _list_day_by_day(since: str, before: str) -> Iterator[AuditEntry]:
    between = AuditEntry.At.between(since, before)
    first, day = _get_day(_parse(since)), _get_day(_parse(before))
    while day >= first:
        yield from AuditEntry.query(
            day.isoformat(), between, consistent_read=True, scan_index_forward=False
        )
        day -= timedelta(days=1)


def _to_moment(microseconds: int) -> str:
    return f"{microseconds:016}"


def _parse(at: str) -> int:
    """The microseconds of an At, or of a moment."""
    return int(at.partition("-")[0])


def _get_day(microseconds: int) -> date:
    return datetime.fromtimestamp(microseconds / _MICROSECONDS, UTC).date()
