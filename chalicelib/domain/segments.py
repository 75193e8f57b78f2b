"""The segments of a log that grows: how they follow each other. Pure.

A segment is an immutable piece of a log. Its bytes are in its item if they are few, and in S3 if not.
What a command printed at one place of its log never changes. So a longer segment may replace shorter
ones, and segments may overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# A segment up to this size is in its item: that costs less than an object in S3.
INLINE_BYTES = 8 * 1024


@dataclass(frozen=True)
class Segment:
    """`size` bytes of a log, from the byte `first` on."""

    first: int
    size: int
    # The bytes; None if they are in S3.
    content: bytes | None = None

    @property
    def end(self) -> int:
        """The place of the first byte after it."""
        return self.first + self.size


@dataclass(frozen=True)
class Span:
    """What a reader takes of a segment: all bytes but the first `skip`, which the one before it has."""

    segment: Segment
    skip: int = 0

    @property
    def size(self) -> int:
        """How many bytes the reader takes."""
        return self.segment.size - self.skip


@dataclass(frozen=True)
class LogState:
    """What is known of a log beside its segments."""

    # How many bytes the largest whole has that was put together at a command's end; 0: there is none.
    assembled: int = 0
    # The last wish for which its worker brought the segments up to date: until when somebody watches.
    caught_up: float = 0


def log_name(job_id: str, executor_id: str, container_id: str) -> str:
    """The name of one target's log."""
    return f"{job_id}/{executor_id}/{container_id}"


def follow(segments: Iterable[Segment]) -> list[Span]:
    """The log so far, byte by byte from 0: as much as the segments have without a gap."""
    spans: list[Span] = []
    end = 0
    for segment in sorted(segments, key=lambda segment: segment.first):
        if segment.first > end:
            break
        if segment.end > end:
            spans.append(Span(segment, end - segment.first))
            end = segment.end
    return spans


def total(spans: Iterable[Span]) -> int:
    """How many bytes they have together."""
    return sum(span.size for span in spans)
