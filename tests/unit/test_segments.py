"""Segments of a log: what follows from those that there are, and how they are stored and read."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.clients import logs
from chalicelib.config import settings
from chalicelib.domain.segments import (
    MAX_PART_BYTES,
    MIN_PART_BYTES,
    LogState,
    Segment,
    SegmentGone,
    Span,
    follow,
    log_name,
    plan_parts,
    segment_bytes,
    total,
)
from chalicelib.store import segments
from tests.support.costs import count_costs

LOG = log_name("j", "1.000000", "c")
EXPIRES = 2_000_000_000


def put(segment: Segment, content: bytes) -> None:
    key = logs.segment_key(LOG, segment)
    logs._s3().put_object(Bucket=settings.log_bucket, Key=key, Body=content)


def whole(segment: Segment) -> Span:
    return Span(segment, 0, segment.size)


def taken(*segments: tuple[int, int]) -> list[tuple[int, int, int]]:
    """What a reader takes of segments (first, size), as (first, size, start)."""
    spans = follow(Segment(*segment) for segment in segments)
    return [(span.segment.first, span.segment.size, span.start) for span in spans]


def test_segments_follow_each_other_up_to_the_first_gap() -> None:
    assert taken() == []
    assert taken((5, 1)) == []
    assert taken((3, 2), (0, 3), (6, 1)) == [(0, 3, 0), (3, 2, 0)]


def test_segments_that_a_longer_one_replaced_are_skipped() -> None:
    assert taken((0, 10), (3, 2), (5, 5), (10, 1)) == [(0, 10, 0), (10, 1, 0)]


def test_of_segments_that_overlap_each_byte_is_taken_once() -> None:
    assert taken((0, 10), (8, 6), (10, 2)) == [(0, 10, 0), (8, 6, 2)]


@pytest.mark.usefixtures("aws")
def test_a_log_without_segments_has_nothing() -> None:
    assert segments.list_segments(LOG) == (LogState(), [])
    assert segments.get_state(LOG) == LogState()


@pytest.mark.usefixtures("aws")
def test_what_was_added_is_listed_and_read() -> None:
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    segments.add(LOG, Segment(3, 9000), EXPIRES)
    put(Segment(3, 9000), b"x" * 9000)
    state, spans = segments.list_segments(LOG)
    assert (state, total(spans)) == (LogState(), 9003)
    assert logs.read_segments(LOG, spans) == b"one" + b"x" * 9000
    assert logs.read_segments(LOG, [Span(Segment(0, 3, b"one"), 1, 2)]) == b"n"
    assert logs.read_segments(LOG, [Span(Segment(3, 9000), 8998, 9000)]) == b"xx"


@pytest.mark.usefixtures("aws")
def test_a_small_segment_grows_where_it_is() -> None:
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    assert segments.append(LOG, Segment(0, 3), b" two")
    assert segments.list_segments(LOG)[1] == [whole(Segment(0, 7, b"one two"))]


@pytest.mark.usefixtures("aws")
def test_bytes_are_appended_only_once_and_only_to_what_is_there() -> None:
    assert not segments.append(LOG, Segment(0, 3), b" two")
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    segments.append(LOG, Segment(0, 3), b" two")
    assert not segments.append(LOG, Segment(0, 3), b" two")
    assert segments.list_segments(LOG)[1] == [whole(Segment(0, 7, b"one two"))]


@pytest.mark.usefixtures("aws")
def test_a_longer_segment_replaces_and_a_shorter_one_does_not() -> None:
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    segments.add(LOG, Segment(0, 9000), EXPIRES)
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    assert segments.list_segments(LOG)[1] == [whole(Segment(0, 9000))]


@pytest.mark.usefixtures("aws")
def test_deleted_segments_are_gone_and_25_cost_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(26):
        segments.add(LOG, Segment(first, 1, b"x"), EXPIRES)
    with count_costs(monkeypatch) as costs:
        segments.delete(LOG, range(1, 26))
    assert costs.requests == {"BatchWriteItem": 1}
    assert segments.list_segments(LOG)[1] == [whole(Segment(0, 1, b"x"))]


@pytest.mark.usefixtures("aws")
def test_the_state_only_moves_on() -> None:
    segments.add(LOG, Segment(0, 1, b"x"), EXPIRES)
    segments.set_assembled(LOG, 10, EXPIRES)
    segments.set_caught_up(LOG, 5.5, EXPIRES)
    segments.set_assembled(LOG, 9, EXPIRES)
    segments.set_caught_up(LOG, 4.5, EXPIRES)
    assert segments.get_state(LOG) == LogState(assembled=10, caught_up=5.5)
    assert segments.list_segments(LOG) == (LogState(10, 5.5), [whole(Segment(0, 1, b"x"))])


@pytest.mark.usefixtures("aws")
def test_a_segment_that_was_replaced_meanwhile_is_said_to_be_gone() -> None:
    with pytest.raises(SegmentGone):
        logs.read_segments(LOG, [whole(Segment(0, 9000))])


def grow(size: int) -> list[Segment]:
    """The large segments of a log that grows to this size, byte by byte."""
    large: list[Segment] = []
    end = 0
    while (bytes_next := segment_bytes(end)) <= size - end:
        # A file is closed as soon as it is as large as the log, with it, asks for.
        while segment_bytes(end + bytes_next) > bytes_next:
            bytes_next = segment_bytes(end + bytes_next)
        large.append(Segment(end, bytes_next))
        end += bytes_next
    return large


GIB = 1024**3


@pytest.mark.parametrize("size", [5 * 1024**2, GIB, 50 * GIB, 64 * GIB])
def test_a_log_of_any_size_has_some_hundred_segments(size: int) -> None:
    large = grow(size)
    assert 1 <= len(large) <= 320
    assert size - large[-1].end < 513 * 1024**2
    parts = plan_parts(map(whole, large))
    assert [part[0].segment for part in parts] == large
    assert len(parts) + 1 <= 10_000


def sizes(parts: list[list[Span]]) -> list[list[int]]:
    return [[span.size for span in part] for part in parts]


def of_sizes(*sizes: int) -> list[Span]:
    """Spans of objects that follow each other."""
    ends = [0, *itertools.accumulate(sizes)]
    return [whole(Segment(first, size)) for first, size in zip(ends, sizes, strict=False)]


MIB = 1024**2


@pytest.mark.parametrize(
    ("spans", "parts"),
    [
        ([], []),
        ([1], [[1]]),
        ([5 * MIB, 3], [[5 * MIB], [3]]),
        # What is small is sent together, and takes enough of what comes next.
        ([1, 2], [[1, 2]]),
        ([1, 6 * MIB], [[1, 5 * MIB], [MIB]]),
        ([MIB, 4 * MIB, 20 * MIB], [[MIB, 4 * MIB], [20 * MIB]]),
        ([MIB, 20 * MIB, 1], [[MIB, 5 * MIB], [15 * MIB], [1]]),
        # What is very large is copied in equal parts.
        ([GIB], [[GIB]]),
        ([GIB + 2], [[GIB // 2 + 1], [GIB // 2 + 1]]),
    ],
)
def test_parts_have_sizes_that_s3_takes(spans: list[int], parts: list[list[int]]) -> None:
    assert sizes(plan_parts(of_sizes(*spans))) == parts


@given(
    st.lists(
        st.one_of(
            st.integers(1, 9000),
            st.integers(1, 12 * MIB),
            st.sampled_from([MIN_PART_BYTES - 1, MIN_PART_BYTES, GIB, 3 * GIB + 7]),
        ),
        max_size=30,
    )
)
def test_parts_have_each_byte_once_and_in_order(spans: list[int]) -> None:
    parts = plan_parts(of_sizes(*spans))
    end = 0
    for part in parts:
        for span in part:
            assert span.segment.first + span.start == end
            end += span.size
    assert end == sum(spans)
    assert all(total(part) >= MIN_PART_BYTES for part in parts[:-1])
    assert all(total(part) <= MAX_PART_BYTES for part in parts)
    # What is sent to S3 has room in memory, and everything else is copied by itself.
    sent = [part for part in parts if not part[0].is_large]
    assert all(total(part) < 3 * MIN_PART_BYTES for part in sent)
    assert all(len(part) == 1 for part in parts if part not in sent)
