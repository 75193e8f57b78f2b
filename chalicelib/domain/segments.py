"""The segments of a log that grows: how they follow each other. Pure.

A segment is a piece of a log. Its bytes are in its item if they are few, and in S3 if not.
What a command printed at one place of its log never changes. So a longer segment may replace shorter
ones, and segments may overlap.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chalicelib.domain.ids import execution_key

# A segment up to this size is in its item: that costs less than an object in S3.
INLINE_BYTES = 8 * 1024
# S3 copies no smaller part into another object, and takes no smaller one (only the last may be smaller).
MIN_PART_BYTES = 5 * 1024**2
# S3 would copy up to 5 GiB in one call, but not in the time that we give a call.
MAX_PART_BYTES = 1024**3
# The largest segment. A log of 64 GiB has some 300.
_MAX_SEGMENT_BYTES = 512 * 1024**2
# A segment has this part of the log before it: so their number grows with the log's logarithm.
_GROWTH = 32


class SegmentGone(Exception):
    """A segment was replaced between the list and the read: list them again."""


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
    """What a reader takes of a segment: the bytes from `start` to before `stop`."""

    segment: Segment
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes the reader takes."""
        return self.stop - self.start

    @property
    def is_large(self) -> bool:
        """Whether S3 can copy it from the segment's object."""
        return self.segment.content is None and self.size >= MIN_PART_BYTES

    def cut(self, sizes: Iterable[int]) -> "Iterator[Span]":
        """Spans of these sizes that follow each other, and the rest if there is one."""
        start = self.start
        for size in (*sizes, self.stop):
            stop = min(start + size, self.stop)
            if stop > start:
                yield Span(self.segment, start, stop)
            start = stop


@dataclass(frozen=True)
class LogState:
    """What is known of a log beside its segments."""

    # How many bytes the longest object has to which the log was put together; 0: there is none.
    assembled: int = 0
    # The last watch for which its worker brought the segments up to date: since when somebody watches.
    caught_up: float = 0


def log_name(job_id: str, executor_id: str, container_id: str) -> str:
    """The name of one target's log."""
    return f"{execution_key(job_id, executor_id)}/{container_id}"


def follow(segments: Iterable[Segment]) -> list[Span]:
    """The log so far, byte by byte from 0: as much as the segments have without a gap."""
    spans: list[Span] = []
    end = 0
    for segment in sorted(segments, key=lambda segment: segment.first):
        if segment.first > end:
            break
        if segment.end > end:
            spans.append(Span(segment, end - segment.first, segment.size))
            end = segment.end
    return spans


def total(spans: Iterable[Span]) -> int:
    """How many bytes they have together."""
    return sum(span.size for span in spans)


def segment_bytes(size: int) -> int:
    """How large a log's next segment becomes, if the log has this size so far."""
    return min(max(size // _GROWTH, MIN_PART_BYTES), _MAX_SEGMENT_BYTES)


def plan_parts(spans: Iterable[Span]) -> list[list[Span]]:
    """How S3 puts the spans together: each part is one that it copies, or some that are sent to it.

    Each part has a size that S3 takes.
    """
    parts: list[list[Span]] = []
    sent: list[Span] = []
    left = deque(spans)
    while left:
        span = left.popleft()
        if span.is_large and not sent:
            parts += ([piece] for piece in _cut_evenly(span))
            continue
        # If the part that is sent is too small, it also takes the beginning of what could be copied.
        first, *rest = span.cut([MIN_PART_BYTES])
        left.extendleft(rest)
        sent.append(first)
        if total(sent) >= MIN_PART_BYTES:
            parts.append(sent)
            sent = []
    return [*parts, sent] if sent else parts


def _cut_evenly(span: Span) -> Iterator[Span]:
    count = -(-span.size // MAX_PART_BYTES)
    return span.cut([-(-span.size // count)] * (count - 1))
