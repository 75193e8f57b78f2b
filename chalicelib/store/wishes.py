"""Reads and writes of wishes: what somebody wants of a running execution.

All wishes of an execution are attributes of one small item, which workers read every 2 s. A new kind of
wish is one more attribute here, and one more handler in the worker.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.ids import execution_key
from chalicelib.store.models import Execution, Wishes
from chalicelib.store.transactions import Conflict, try_write, until_settled

# JobId and ExecutorId.
Ids = tuple[str, str]

# A look at a log is a wish for so long; workers bring the execution's logs up to date quickly meanwhile.
WATCH_SECONDS = 30
# A look within this time after the last wish writes nothing.
RENEW_SECONDS = 20
# The newest wishes to assemble a log, so that the item stays below 1 KiB: a read is half a unit then.
_MOST_ASSEMBLED, _MOST_ASSEMBLED_BYTES = 8, 768


@until_settled
def watch(execution: Execution, now: float) -> float:
    """Wishes that the execution's logs are brought up to date quickly, for some time from now on.

    Returns since when somebody has wished that, without a gap.
    """
    wishes = _get_wishes(execution)
    before = wishes.WatchedUntil or 0
    if before <= now + WATCH_SECONDS - RENEW_SECONDS:
        since = wishes.WatchedSince if before > now else now
        until = now + WATCH_SECONDS
        changes: list[Action] = [Wishes.WatchedSince.set(since), Wishes.WatchedUntil.set(until)]
        _change(wishes, changes, _is_still(Wishes.WatchedUntil, wishes.WatchedUntil))
    return float(wishes.WatchedSince)


@until_settled
def assemble(execution: Execution, container_id: str, now: float) -> None:
    """Wishes that the target's log, as far as it is now, becomes one object."""
    wishes = _get_wishes(execution)
    others = [wish for wish in wishes.Assemble or [] if wish[0] != container_id]
    newest = [*others, [container_id, now]][-_MOST_ASSEMBLED:]
    while len(json.dumps(newest)) > _MOST_ASSEMBLED_BYTES:
        newest.pop(0)
    changes: list[Action] = [Wishes.Assemble.set(newest)]
    _change(wishes, changes, _is_still(Wishes.Assemble, wishes.Assemble))


def read_wishes(executions: Iterable[Ids]) -> Iterator[tuple[Ids, Wishes]]:
    """Those of these executions that have wishes, and their wishes; 100 executions are one request.

    The wishes may be some moments old, which halves the price.
    """
    by_key = {execution_key(*ids): ids for ids in executions}
    for wishes in Wishes.batch_get(by_key, consistent_read=False):
        yield by_key[wishes.Execution], wishes


def _get_wishes(execution: Execution) -> Wishes:
    """The stored item, or one that nobody has stored yet."""
    key = execution_key(execution.JobId, execution.ExecutorId)
    try:
        return Wishes.get(key, consistent_read=True)
    except DoesNotExist:
        return Wishes(key, ExpiresAt=execution.ExpiresAt)


def _is_still(attribute: Any, value: Any) -> Any:
    """The condition that nobody changed the attribute since we read it."""
    return attribute.does_not_exist() if value is None else attribute == value


def _change(wishes: Wishes, changes: list[Action], condition: Condition) -> None:
    """Changes the item, the stored one and ours. Raises Conflict if the condition does not hold."""
    expires = Wishes.ExpiresAt.set(wishes.ExpiresAt)
    if not try_write(lambda: wishes.update([*changes, expires], condition)):
        raise Conflict
