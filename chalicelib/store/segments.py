"""Reads and writes of the segments of logs, and of each log's state.

The item of a segment is added, and may grow while it is small; it never shrinks. So a write that is done
twice, or late, does no harm.
"""

from collections.abc import Iterable

from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.segments import LogState, Segment, Span, follow
from chalicelib.store import models
from chalicelib.store.transactions import try_write

# Where the item of a log's state is, before all segments.
_STATE = -1


def list_segments(log: str) -> tuple[LogState, list[Span]]:
    """The log's state, and what it has so far, without a gap from its first byte on."""
    items = list(models.Segment.query(log, consistent_read=True))
    states = [_state(item) for item in items if item.First == _STATE]
    segments = [_segment(item) for item in items if item.First != _STATE]
    return (states[0] if states else LogState()), follow(segments)


def get_state(log: str) -> LogState:
    """Only the log's state."""
    try:
        return _state(models.Segment.get(log, _STATE, consistent_read=True))
    except DoesNotExist:
        return LogState()


def add(log: str, segment: Segment, expires: int) -> None:
    """Adds a segment, unless there is one with the same beginning that is as long."""
    shorter = models.Segment.Size.does_not_exist() | (models.Segment.Size < segment.size)
    item = models.Segment(log, segment.first, Size=segment.size, ExpiresAt=expires)
    if segment.content is not None:
        item.Bytes = [segment.content]
    try_write(lambda: item.save(shorter))


def append(log: str, segment: Segment, more: bytes) -> bool:
    """Makes a segment longer whose bytes are in its item. False if the stored one is another by now."""
    size = segment.size + len(more)
    stored = models.Segment.Bytes
    actions: list[Action] = [stored.set(stored.append([more])), models.Segment.Size.set(size)]
    item = models.Segment(log, segment.first)
    return try_write(lambda: item.update(actions, models.Segment.Size == segment.size))


def delete(log: str, firsts: Iterable[int]) -> None:
    """Deletes the items of segments that a longer one replaced."""
    with models.Segment.batch_write() as batch:
        for first in firsts:
            batch.delete(models.Segment(log, first))


def set_assembled(log: str, size: int, expires: int) -> None:
    """Says that the log was put together, with so many bytes. A smaller number changes nothing."""
    assembled = models.Segment.Assembled
    _set_state(log, [assembled.set(size)], assembled.does_not_exist() | (assembled < size), expires)


def set_caught_up(log: str, since: float, expires: int) -> None:
    """Says that the segments are up to date for the readers that have watched since then."""
    caught_up = models.Segment.CaughtUp
    later = caught_up.does_not_exist() | (caught_up < since)
    _set_state(log, [caught_up.set(since)], later, expires)


def _set_state(log: str, actions: list[Action], condition: Condition, expires: int) -> None:
    actions = [*actions, models.Segment.ExpiresAt.set(expires)]
    try_write(lambda: models.Segment(log, _STATE).update(actions, condition))


def _state(item: models.Segment) -> LogState:
    return LogState(int(item.Assembled or 0), float(item.CaughtUp or 0))


def _segment(item: models.Segment) -> Segment:
    content = None if item.Bytes is None else b"".join(item.Bytes)
    return Segment(int(item.First), int(item.Size), content)
