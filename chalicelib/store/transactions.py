"""Conditional writes and transactions: what their failures mean, and another try if others won."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NoReturn

from pynamodb.connection import Connection
from pynamodb.exceptions import PynamoDBException, TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model
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

# What DynamoDB answers if a condition does not hold: to a single write, and for a write of a transaction.
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


class Writes:
    """The writes of a transaction. Each has a condition, and an error if that does not hold."""

    def __init__(self, write: TransactWrite) -> None:
        self._write = write
        self._deletions: list[Exception | None] = []
        self._puts: list[Exception | None] = []
        self._updates: list[Exception | None] = []

    def delete(self, item: Model, condition: Condition, otherwise: Exception | None = None) -> None:
        """Deletes the item. If the condition does not hold, `otherwise` is raised, or Conflict."""
        self._write.delete(item, condition)
        self._deletions.append(otherwise)

    def save(self, item: Model, condition: Condition, otherwise: Exception | None = None) -> None:
        """Stores the item as a whole; the rest as in `delete`."""
        self._write.save(item, condition)
        self._puts.append(otherwise)

    def update(
        self,
        item: Model,
        actions: list[Action],
        condition: Condition,
        otherwise: Exception | None = None,
    ) -> None:
        """Does these actions to the stored item; the rest as in `delete`."""
        self._write.update(item, actions, condition)
        self._updates.append(otherwise)

    @property
    def failures(self) -> list[Exception | None]:
        """What each write raises, in the order in which PynamoDB sends them."""
        return [*self._deletions, *self._puts, *self._updates]


@contextmanager
def transaction() -> Iterator[Writes]:
    """Sends its writes at the end of the block. If a condition does not hold, nothing is written.

    Raises the `otherwise` of the first such write, or Conflict if it has none. Deletions come first:
    if another rename of the job was first, its old name is gone. Then we must read again, and the new
    name is not called taken.
    """
    try:
        with TransactWrite(connection=_connection()) as write:
            writes = Writes(write)
            yield writes
    except TransactWriteError as error:
        codes = [reason.code if reason else _NO_REASON for reason in error.cancellation_reasons]
        if not codes:
            raise
        failed = (
            failure or Conflict(codes)
            for code, failure in zip(codes, writes.failures, strict=True)
            if code == _CONDITION
        )
        raise next(failed, Conflict(codes)) from error


def note(writes: Writes, entry: AuditEntry) -> None:
    """Makes an audit entry one more write of a transaction: no change without its entry, and vice versa.

    Entries are only ever added.
    """
    writes.save(entry, AuditEntry.At.does_not_exist())


def try_write(write: Callable[[], object]) -> bool:
    """Does a single conditional write; False if its condition does not hold."""
    try:
        write()
    except PynamoDBException as error:
        if error.cause_response_code == CONDITION_FAILED:
            return False
        raise
    return True
