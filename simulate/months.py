"""What is asked of AWS all the time, and while a command runs. A month has 30 days."""

from simulate.steps import BATCH, CORE_GB, END_BYTES, TAIL_BYTES, call, write_units
from simulate.usage import (
    OBJECT_GB_MONTHS,
    READ_UNITS,
    TABLE_GB_MONTHS,
    WRITE_UNITS,
    Usage,
    add,
    times,
)

DAY_SECONDS = 86_400
MONTH_SECONDS = 30 * DAY_SECONDS
MONTH_MINUTES = MONTH_SECONDS // 60
# A worker's long poll, its heartbeats (worker/heartbeat.py), and how often it extends its lease.
POLL_SECONDS = 20
IDLE_HEARTBEAT_SECONDS, BUSY_HEARTBEAT_SECONDS = 120, 30
LEASE_SECONDS = 20
NODE_BYTES = 400
# Shards of the index of what is due, and how long a turn of upkeep takes that finds nothing.
DUE_SHARDS = 16
UPKEEP_SECONDS = 0.2
# Lambda's pollers of one queue, at the least.
POLLERS = 5
ALARMS = 5
# While nobody looks, a log is uploaded so often in an hour; a reading of wishes, each 2 s.
UPLOADS_OF_AN_HOUR = 80
WISH_SECONDS = 2
# A small segment grows up to here, by so many uploads.
SEGMENT_BYTES, SEGMENT_UPLOADS = 8 * 1024, 8
# Of one target in its part, in the counts, and DynamoDB's own 100 bytes an item.
KEPT_BESIDE_BYTES = 300


def idle_node() -> Usage:
    """A node for a month, if nothing runs on it."""
    return {
        "ReceiveMessage": MONTH_SECONDS // POLL_SECONDS,
        "PutItem": MONTH_SECONDS // IDLE_HEARTBEAT_SECONDS,
        WRITE_UNITS: MONTH_SECONDS // IDLE_HEARTBEAT_SECONDS * write_units(NODE_BYTES),
    }


def busy_hour() -> Usage:
    """What a node that runs something takes beyond that, in an hour."""
    beats = 3600 // BUSY_HEARTBEAT_SECONDS - 3600 // IDLE_HEARTBEAT_SECONDS
    return {
        "PutItem": beats,
        WRITE_UNITS: beats * write_units(NODE_BYTES),
        "GetQueueAttributes": 3600 // BUSY_HEARTBEAT_SECONDS,
    }


def upkeep_turn() -> Usage:
    """A turn of upkeep that finds nothing to do."""
    return add({"Query": DUE_SHARDS, READ_UNITS: DUE_SHARDS / 2}, call(CORE_GB, UPKEEP_SECONDS))


def stack() -> Usage:
    """The functions, queues, key and alarms of one deployment for a month."""
    polls = 2 * POLLERS * MONTH_SECONDS // POLL_SECONDS
    return add(
        times(MONTH_MINUTES, upkeep_turn()),
        {"ReceiveMessage": polls, "KeyMonths": 1, "AlarmMonths": ALARMS},
    )


def printing_hour() -> Usage:
    """An hour of one command that prints a little all the time, while nobody looks at its log.

    Each upload makes an item longer, until it is full and the next one begins.
    """
    wishes = 3600 // WISH_SECONDS
    return {
        "PutItem": UPLOADS_OF_AN_HOUR / SEGMENT_UPLOADS,
        "UpdateItem": UPLOADS_OF_AN_HOUR * (1 - 1 / SEGMENT_UPLOADS),
        WRITE_UNITS: UPLOADS_OF_AN_HOUR * write_units(SEGMENT_BYTES / 2),
        "BatchGetItem": wishes,
        READ_UNITS: wishes / 2,
        # A request extends the leases of ten commands.
        "ChangeMessageVisibilityBatch": 3600 / LEASE_SECONDS / BATCH,
    }


def kept(targets: float, output_bytes: int) -> Usage:
    """What is kept of so many targets a month later: results, the ends of outputs, and whole logs."""
    end = min(output_bytes, TAIL_BYTES)
    whole = output_bytes if output_bytes > TAIL_BYTES else 0
    return {
        TABLE_GB_MONTHS: targets * (END_BYTES + KEPT_BESIDE_BYTES + end) / 1e9,
        OBJECT_GB_MONTHS: targets * whole / 1e9,
    }
