"""DynamoDB's transactions: what their failures mean, and trying again where others were faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NoReturn

from pynamodb.connection import Connection
from pynamodb.exceptions import TransactWriteError
from pynamodb.transactions import TransactWrite
from tenacity import (
    RetryCallState,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from chalicelib.domain.errors import TryAgain
from chalicelib.store.models import AuditEntry, Job

# What a single write is answered when its condition does not hold, and what a part of a transaction is.
CONDITION_FAILED = "ConditionalCheckFailedException"
_CONDITION = "ConditionalCheckFailed"
_NO_REASON = "None"


class Conflict(Exception):
    """Someone changed an item between our read and our write: read again and retry."""


def _give_up(state: RetryCallState) -> NoReturn:
    raise TryAgain("too many changes of the same items at the same time; try again")


# Enough for some hundred clients that start one job at the same moment.
until_settled = retry(
    retry=retry_if_exception_type(Conflict),
    wait=wait_random_exponential(multiplier=0.02, max=0.5),
    stop=stop_after_attempt(60),
    retry_error_callback=_give_up,
)


@cache
def _connection() -> Connection:
    meta = Job.Meta
    return Connection(
        connect_timeout_seconds=meta.connect_timeout_seconds,
        read_timeout_seconds=meta.read_timeout_seconds,
        max_retry_attempts=meta.max_retry_attempts,
        max_pool_connections=meta.max_pool_connections,
    )


@contextmanager
def transaction(*failures: type[Exception]) -> Iterator[TransactWrite]:
    """A transaction that raises `failures[i]` where the condition of its i-th part does not hold.

    DynamoDB counts the parts as PynamoDB sends them: deletions, then puts, then updates.
    """
    try:
        with TransactWrite(connection=_connection()) as parts:
            yield parts
    except TransactWriteError as error:
        codes = [reason.code if reason else _NO_REASON for reason in error.cancellation_reasons]
        if not codes:
            raise
        for code, failure in zip(codes, failures, strict=True):
            if code == _CONDITION:
                raise failure() from None
        raise Conflict(codes) from error


def note(parts: TransactWrite, entry: AuditEntry) -> None:
    """Makes an audit entry one more put of a transaction: no change without its entry, and vice versa.

    Entries are only ever added.
    """
    parts.save(entry, AuditEntry.At.does_not_exist())
