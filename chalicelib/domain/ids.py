"""The ids of jobs and executions: which texts can be one, and the next one. Pure."""

import re
import uuid
from collections.abc import Iterable
from typing import NamedTuple

from chalicelib.domain.errors import ExecutionNotFound, JobNotFound

# Seconds since 1970 with six decimals.
EXECUTOR_ID = r"[0-9]{1,12}\.[0-9]{6}"
_EXECUTOR_ID = re.compile(EXECUTOR_ID)
_MICROSECONDS = 1_000_000  # in a second


class JobKey(NamedTuple):
    """A job's place among all jobs: an application's are in the order of their names."""

    AppName: str
    Name: str
    JobId: str


def parse_job_id(text: str) -> str:
    """The text, if it can be an id. Raises JobNotFound if it cannot: then nobody needs to look it up."""
    try:
        is_canonical = str(uuid.UUID(text)) == text
    except ValueError:
        is_canonical = False
    if not is_canonical:
        raise JobNotFound(text)
    return text


def is_executor_id(text: str) -> bool:
    """Whether the text can be the id of an execution."""
    return _EXECUTOR_ID.fullmatch(text) is not None


def parse_executor_id(text: str) -> str:
    """The text, if it can be an id. Raises ExecutionNotFound if it cannot."""
    if not is_executor_id(text):
        raise ExecutionNotFound(text)
    return text


def execution_key(job_id: str, executor_id: str) -> str:
    """An execution's key in the tables that have no JobId of their own; other keys begin with it."""
    return f"{job_id}/{executor_id}"


def next_executor_id(known: Iterable[str], now: float) -> str:
    """The time now, as an id. It is later than every known id, even if other clocks are ahead."""
    latest = max((int(executor_id.replace(".", "")) for executor_id in known), default=0)
    microseconds = max(int(now * _MICROSECONDS), latest + 1)
    return f"{microseconds // _MICROSECONDS}.{microseconds % _MICROSECONDS:06}"
