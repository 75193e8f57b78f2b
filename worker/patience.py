"""What the worker does if a service fails: its loops go on, and what must not be lost is tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from chalicelib.domain.errors import AppjobsError
from worker import metrics

log = structlog.stdlib.get_logger(__name__)

# If S3 does not take or give a log for this long, the worker gives the log up. The exit code must not be
# lost with it.
LOG_SECONDS = 900


@contextmanager
def tolerated(step: str, **context: str) -> Iterator[None]:
    """Logs and counts the error of a step that a loop repeats, and lets the loop go on."""
    try:
        yield
    except Exception:
        log.warning(f"{step} failed", exc_info=True, **context)
        metrics.RETRIES.labels(step).inc()


def _count_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("trying again", attempt=state.attempt_number, error=str(error))
    metrics.RETRIES.labels("end").inc()


def _is_worth_a_retry(error: BaseException) -> bool:
    """A domain error is an answer. A BaseException that is not an Exception ends the process."""
    return isinstance(error, Exception) and not isinstance(error, AppjobsError)


# Tries again until it works or this process ends. Meanwhile the lease holds the message.
insist = Retrying(
    wait=wait_exponential_jitter(multiplier=0.2, max=20),
    retry=retry_if_exception(_is_worth_a_retry),
    before_sleep=_count_retry,
    reraise=True,
)
insist_on_log = insist.copy(stop=stop_after_delay(LOG_SECONDS))
