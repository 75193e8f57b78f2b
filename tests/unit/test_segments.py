"""Segments of a log: what follows from those that there are, and how they are stored and read."""

import pytest

from chalicelib.clients import logs
from chalicelib.config import settings
from chalicelib.domain.segments import LogState, Segment, Span, follow, log_name, total
from chalicelib.store import segments
from tests.support.costs import count_costs

LOG = log_name("j", "1.000000", "c")
EXPIRES = 2_000_000_000


def put(segment: Segment, content: bytes) -> None:
    key = logs.segment_key(LOG, segment)
    logs._s3().put_object(Bucket=settings.log_bucket, Key=key, Body=content)


def taken(*segments: tuple[int, int]) -> list[tuple[int, int, int]]:
    """What a reader takes of segments (first, size), as (first, size, skip)."""
    spans = follow(Segment(*segment) for segment in segments)
    return [(span.segment.first, span.segment.size, span.skip) for span in spans]


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
    assert logs.read_segments(LOG, [Span(Segment(0, 3, b"one"), 1)]) == b"ne"
    assert logs.read_segments(LOG, [Span(Segment(3, 9000), 8998)]) == b"xx"


@pytest.mark.usefixtures("aws")
def test_a_small_segment_grows_where_it_is() -> None:
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    assert segments.append(LOG, Segment(0, 3), b" two")
    assert segments.list_segments(LOG)[1] == [Span(Segment(0, 7, b"one two"))]


@pytest.mark.usefixtures("aws")
def test_bytes_are_appended_only_once_and_only_to_what_is_there() -> None:
    assert not segments.append(LOG, Segment(0, 3), b" two")
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    segments.append(LOG, Segment(0, 3), b" two")
    assert not segments.append(LOG, Segment(0, 3), b" two")
    assert segments.list_segments(LOG)[1] == [Span(Segment(0, 7, b"one two"))]


@pytest.mark.usefixtures("aws")
def test_a_longer_segment_replaces_and_a_shorter_one_does_not() -> None:
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    segments.add(LOG, Segment(0, 9000), EXPIRES)
    segments.add(LOG, Segment(0, 3, b"one"), EXPIRES)
    assert segments.list_segments(LOG)[1] == [Span(Segment(0, 9000))]


@pytest.mark.usefixtures("aws")
def test_deleted_segments_are_gone_and_25_cost_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(26):
        segments.add(LOG, Segment(first, 1, b"x"), EXPIRES)
    with count_costs(monkeypatch) as costs:
        segments.delete(LOG, range(1, 26))
    assert costs.requests == {"BatchWriteItem": 1}
    assert segments.list_segments(LOG)[1] == [Span(Segment(0, 1, b"x"))]


@pytest.mark.usefixtures("aws")
def test_the_state_only_moves_on() -> None:
    segments.add(LOG, Segment(0, 1, b"x"), EXPIRES)
    segments.set_assembled(LOG, 10, EXPIRES)
    segments.set_caught_up(LOG, 5.5, EXPIRES)
    segments.set_assembled(LOG, 9, EXPIRES)
    segments.set_caught_up(LOG, 4.5, EXPIRES)
    assert segments.get_state(LOG) == LogState(assembled=10, caught_up=5.5)
    assert segments.list_segments(LOG) == (LogState(10, 5.5), [Span(Segment(0, 1, b"x"))])
