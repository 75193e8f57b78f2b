"""The history of a job: page by page, without reading results."""

import time
from itertools import islice

from chalicelib import store
from chalicelib.domain.access import Caller
from chalicelib.domain.ids import parse_job_id
from chalicelib.schemas.history import HistoryEntry, HistoryPage, HistoryRequest
from chalicelib.schemas.pages import DEFAULT_LIMIT
from chalicelib.store.models import Execution

# How many executions we read at once, at least.
_SMALLEST_STEP = 100


def read_history(caller: Caller, job_id: str, request: HistoryRequest) -> HistoryPage:
    """The newest executions that the caller sees, also of a deleted job. Raises JobNotFound."""
    parse_job_id(job_id)
    limit = request.Limit or DEFAULT_LIMIT
    now = time.time()
    # One more than the page has: then there is a next one. An id that the caller must not see is not its
    # Next either. So we read on past thousands that it must not see, and do so in large steps.
    step = max(limit + 1, _SMALLEST_STEP)
    stored = store.executions.list_newest(job_id, request.Next, page_size=step)
    visible = (
        execution
        for execution in stored
        if caller.sees(execution.AppName) and execution.ExpiresAt >= now
    )
    found = list(islice(visible, limit + 1))
    if not found and not request.Next:
        caller.require_visible(job_id, store.jobs.get_job(job_id).AppName)
    shown = found[:limit]
    return HistoryPage(
        [_show(execution) for execution in shown],
        shown[-1].ExecutorId if len(found) > limit else None,
    )


def _show(execution: Execution) -> HistoryEntry:
    return HistoryEntry(
        ExecutorId=execution.ExecutorId,
        CreateTime=float(execution.ExecutorId),
        By=execution.By or "",
        **{name: getattr(execution, name) for name in ("Total", "Succeeded", "Failed", "EndTime")},
    )
