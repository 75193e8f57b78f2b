"""What is left of the output of a target that its worker will not end any more."""

import structlog

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import log_name, total
from chalicelib.store.models import Result

log = structlog.stdlib.get_logger(__name__)

# S3 copies a longer log for longer than a function may run. It stays in its segments.
_MOST_BYTES = 4 * 1024**3


def gather(result: Result) -> None:
    """Puts the target's log together of what its worker uploaded, and notes its size in the result.

    Whatever fails, the caller goes on: that the target is lost must not be lost with its log.
    """
    result.OutputIncomplete = True
    try:
        result.OutputSize = _put_together(result) or None
    except Exception:
        log.exception("log not put together", exec_id=result.ID)


def _put_together(result: Result) -> int:
    job_id, executor_id, *_ = result.Execution.split("/")
    name = log_name(job_id, executor_id, result.ContainerId)
    state, spans = store.segments.list_segments(name)
    size = total(spans)
    if state.assembled < size <= _MOST_BYTES:
        logs.assemble(logs.whole_key(name, size), name, spans)
        store.segments.set_assembled(name, size, int(result.ExpiresAt))
    return max(size, state.assembled)
