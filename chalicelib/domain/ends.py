"""Which targets of an execution are over, and how they are counted. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class End(NamedTuple):
    """How one target ended. A result that is over never changes, so its end is always the same."""

    # The target's index in the request.
    position: int
    succeeded: bool
    # None: it never ran.
    time: float | None


@dataclass(frozen=True)
class Counted:
    """The positions of the targets that are counted, of an execution or of one of its parts.

    They are sets: to count a target twice is to count it once.
    """

    succeeded: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    # When the last of them ended; None if none of them ran.
    end_time: float | None = None

    def __len__(self) -> int:
        return len(self.succeeded) + len(self.failed)

    def __contains__(self, position: int) -> bool:
        return position in self.succeeded or position in self.failed


def unite(parts: Iterable[Counted]) -> Counted:
    """What is counted in some parts together."""
    counted = list(parts)
    times = [part.end_time for part in counted if part.end_time is not None]
    return Counted(
        frozenset().union(*(part.succeeded for part in counted)),
        frozenset().union(*(part.failed for part in counted)),
        max(times, default=None),
    )
