"""Every read and write of DynamoDB. Each change of state is one conditional write or one transaction.

PynamoDB's errors end here: what a caller can act on becomes a domain error, all else is raised as it is.
"""

from chalicelib.store import (
    audit,
    counts,
    executions,
    jobs,
    nodes,
    outputs,
    results,
    segments,
    targets,
    tokens,
    wishes,
)
from chalicelib.store.connection import connect

__all__ = [
    "audit",
    "connect",
    "counts",
    "executions",
    "jobs",
    "nodes",
    "outputs",
    "results",
    "segments",
    "targets",
    "tokens",
    "wishes",
]
