"""A start in its request, and what became of it in its answer."""

import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from chalicelib.domain.errors import require
from chalicelib.schemas.values import ExecutorId, JobId, Time

MAX_TARGETS = 1000

_NODE_ID = re.compile(r"[A-Za-z0-9:-]*")
# What an engine calls a container: it becomes part of paths (the engine's API, the log's key).
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NodeId = Annotated[
    str,
    # A thousand of the longest targets must fit into one item of DynamoDB.
    Meta(
        min_length=1,
        max_length=80,
        extra_json_schema={"pattern": f"^{_NODE_ID.pattern}$"},
        description="The Swarm NodeID, or the engine's ID if it is in no swarm.",
    ),
]
_ContainerId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        extra_json_schema={"pattern": f"^{_CONTAINER_ID.pattern}$"},
    ),
]


class Target(Struct, frozen=True):
    """One container on one node."""

    ContainerId: _ContainerId
    NodeId: _NodeId


class StartRequest(Struct):
    """The body of a start."""

    Target: Annotated[list[Target], Meta(min_length=1, max_length=MAX_TARGETS)]

    def check(self) -> None:
        """Raises InvalidRequest if something cannot be an id, or if a container is listed twice."""
        seen = set()
        for index, target in enumerate(self.Target):
            require(
                _NODE_ID.fullmatch(target.NodeId) is not None,
                f"Target[{index}].NodeId must be a Swarm NodeID or an engine's ID: "
                "letters, digits, : and -",
            )
            require(
                _CONTAINER_ID.fullmatch(target.ContainerId) is not None,
                f"Target[{index}].ContainerId must be a container's id or name: a letter or digit, then "
                "letters, digits, _, . and -",
            )
            require(
                target.ContainerId not in seen,
                f"Target[{index}].ContainerId {target.ContainerId} is listed twice; name it once",
            )
            seen.add(target.ContainerId)


class ExecutionAnswer(Struct):
    """What became of one start: a result per target, in the targets' order."""

    JobId: JobId
    ExecutorId: ExecutorId
    CreateTime: Time
    # As they are stored: plain dicts, which need no check.
    Target: list[dict[str, str]]
    # Each has one of the shapes of RESULTS. They are built as plain dicts, since all fields of an
    # engine's inspect are passed on, whatever they are.
    Result: list[dict[str, Any]]
    Total: Annotated[int, Meta(description="Targets.")]
    Succeeded: Annotated[int, Meta(description="Targets that ended with exit code 0.")]
    Failed: Annotated[
        int, Meta(description="Targets that ended otherwise; the rest, if any, is under way.")
    ]
