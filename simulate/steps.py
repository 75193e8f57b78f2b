"""What each step of an execution asks of AWS. The simulation and the prices count with this table."""

import math
from dataclasses import dataclass

from simulate.usage import (
    FUNCTION_GB_SECONDS,
    FUNCTION_RUNS,
    GATEWAY_REQUESTS,
    INDEX_UNITS,
    READ_UNITS,
    WRITE_UNITS,
    Usage,
    add,
)

# The most targets of one part, and what SQS takes in a request.
PART_TARGETS = 32
BATCH = 10
# The most keys of a BatchGetItem.
BATCH_KEYS = 100
# An output up to here is in the result. Of a longer one, this much of its end is in an item beside it.
# All targets of an execution share the last number.
INLINE_BYTES = 512
TAIL_BYTES, ALL_TAILS_BYTES = 8_000, 4 * 1024**2
_WRITE_BYTES, _READ_BYTES = 1024, 4096
# Sizes of items in bytes, of a job with a short command: an execution without its targets; a job with its
# newest 100 to 150 starts; a part, and one target and one node in it; an entry of the audit; a claim; an
# end without its output.
EXECUTION_BYTES = 250
JOB_BYTES = 2_400
PART_BYTES, TARGET_BYTES, NODE_BYTES = 120, 75, 31
AUDIT_BYTES = 240
CLAIM_BYTES = 350
END_BYTES = 360
# What a function's memory costs per second, in gigabytes.
API_GB, CORE_GB = 0.5, 1769 / 1024


@dataclass(frozen=True)
class Fanout:
    """A start of so many targets, spread evenly over nodes, and what each of its commands prints."""

    targets: int
    nodes: int
    output_bytes: int = 200
    secrets: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.nodes <= self.targets:
            raise ValueError("a node has at least one target")

    @property
    def parts(self) -> int:
        """In how many parts the targets are stored."""
        return math.ceil(self.targets / PART_TARGETS)

    @property
    def targets_of_a_node(self) -> int:
        """How many targets the node with the most has."""
        return math.ceil(self.targets / self.nodes)

    def part_bytes(self, part: int) -> int:
        """The size of a part's item. The parts are full except for the last one."""
        first = part * PART_TARGETS
        last = min(first + PART_TARGETS, self.targets) - 1
        nodes = last // self.targets_of_a_node - first // self.targets_of_a_node + 1
        return PART_BYTES + (last - first + 1) * TARGET_BYTES + nodes * NODE_BYTES

    def parts_of_node(self, node: int) -> int:
        """In how many parts the targets of a node are."""
        first = node * self.targets_of_a_node
        last = min(first + self.targets_of_a_node, self.targets) - 1
        return last // PART_TARGETS - first // PART_TARGETS + 1


def write_units(size: float) -> int:
    """What a write of an item of that size costs."""
    return max(1, math.ceil(size / _WRITE_BYTES))


def read_units(size: float, consistent: bool = False) -> float:
    """What a read of that size costs; half as much if it may be a moment old."""
    units = max(1, math.ceil(size / _READ_BYTES))
    return units if consistent else units / 2


# A transaction costs twice.
JOB_UNITS, AUDIT_UNITS = 2 * write_units(JOB_BYTES), 2 * write_units(AUDIT_BYTES)
JOB_READ_UNITS = read_units(JOB_BYTES, consistent=True)


def execution_units(fanout: Fanout) -> int:
    """The write of an execution, with its targets if they are in one part."""
    return 2 * write_units(_execution_bytes(fanout))


def parts_units(fanout: Fanout) -> int:
    """The writes of the parts that are items of their own."""
    if fanout.parts == 1:
        return 0
    return 2 * sum(write_units(fanout.part_bytes(part)) for part in range(fanout.parts))


def load_execution(fanout: Fanout) -> float:
    """A worker's read of the execution."""
    return read_units(_execution_bytes(fanout))


def _execution_bytes(fanout: Fanout) -> int:
    return EXECUTION_BYTES + (fanout.part_bytes(0) if fanout.parts == 1 else 0)


def call(gigabytes: float, seconds: float) -> Usage:
    """One run of a function."""
    return {FUNCTION_RUNS: 1, FUNCTION_GB_SECONDS: gigabytes * seconds}


def accept(fanout: Fanout) -> Usage:
    """The API accepts a start: the job, the nodes, and one transaction."""
    return {
        GATEWAY_REQUESTS: 1,
        "GetItem": 1,
        "BatchGetItem": math.ceil(fanout.nodes / BATCH_KEYS),
        "TransactWriteItems": 1,
        READ_UNITS: JOB_READ_UNITS + fanout.nodes / 2,
        WRITE_UNITS: JOB_UNITS + AUDIT_UNITS + execution_units(fanout) + parts_units(fanout),
        # The index of what is due, and the audit's by job.
        INDEX_UNITS: 2,
    }


def load(fanout: Fanout) -> Usage:
    """A worker reads an execution, and opens its secrets."""
    return {"GetItem": 1, READ_UNITS: load_execution(fanout), "Decrypt": fanout.secrets}


def load_part(fanout: Fanout, part: int) -> Usage:
    """A worker reads a part of the targets, unless it is in the execution."""
    if fanout.parts == 1:
        return {}
    return {"GetItem": 1, READ_UNITS: read_units(fanout.part_bytes(part))}


def claim(_: Fanout) -> Usage:
    """A worker claims a target."""
    return {"PutItem": 1, WRITE_UNITS: write_units(CLAIM_BYTES)}


def note_running(_: Fanout) -> Usage:
    """A worker notes that a command runs, if it takes longer than a quarter of a second."""
    return {"PutItem": 1, WRITE_UNITS: write_units(CLAIM_BYTES)}


def keep_log(fanout: Fanout) -> Usage:
    """A worker stores an output that does not fit its result: the end in an item, all in S3."""
    if fanout.output_bytes <= INLINE_BYTES:
        return {}
    kept = min(fanout.output_bytes, TAIL_BYTES, ALL_TAILS_BYTES // fanout.targets)
    item = {"PutItem": 1, WRITE_UNITS: write_units(kept + 190)}
    return item if kept == fanout.output_bytes else add(item, {"PutObject": 1})


def finish(fanout: Fanout) -> Usage:
    """A worker stores how a command ended."""
    output = fanout.output_bytes if fanout.output_bytes <= INLINE_BYTES else 0
    return {"PutItem": 1, WRITE_UNITS: write_units(END_BYTES + output)}


def count(_: Fanout) -> Usage:
    """A worker adds the ends of one part, or the API those of the targets that it refused."""
    return {"UpdateItem": 1, WRITE_UNITS: 1}


def report(_: Fanout) -> Usage:
    """A worker says that a part is complete."""
    return {"SendMessage": 1}


def delete(messages: int) -> Usage:
    """A worker deletes the messages of targets that are counted."""
    return {"DeleteMessageBatch": math.ceil(messages / BATCH)}


def close(fanout: Fanout) -> Usage:
    """The closing function closes an execution."""
    return {
        "UpdateItem": 1,
        WRITE_UNITS: write_units(_execution_bytes(fanout)),
        INDEX_UNITS: 1,
    }


def take_reports(messages: int) -> Usage:
    """Lambda receives a batch of reports, and deletes them when the function has run."""
    requests = math.ceil(messages / BATCH)
    return {"ReceiveMessage": requests, "DeleteMessageBatch": requests}


def look(fanout: Fanout, executions: int, still_open: int) -> Usage:
    """The closing function looks which of a batch's executions are complete."""
    parts = still_open * fanout.parts
    return {
        "BatchGetItem": math.ceil(executions / BATCH_KEYS) + math.ceil(parts / BATCH_KEYS),
        READ_UNITS: executions * read_units(_execution_bytes(fanout), consistent=True) + parts,
    }
