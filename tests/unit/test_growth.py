"""A log that grows: how often its bytes go to AWS, and that a reader finds all of them at any time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import INLINE_BYTES, MIN_PART_BYTES, LogState, total
from tests.support.costs import count_costs
from tests.support.logged import logged, stored_objects
from worker.output import growth
from worker.output.growth import GrowingLog
from worker.output.spool import SpoolDirectory

pytestmark = pytest.mark.usefixtures("aws")

LOG = "j/1.000000/c"
EXPIRES = 2_000_000_000
LARGE = b"x" * MIN_PART_BYTES
MIDDLE = b"y" * (INLINE_BYTES + 1)


@pytest.fixture
def log(tmp_path: Path) -> GrowingLog:
    return open_log(tmp_path)


def open_log(folder: Path) -> GrowingLog:
    spool = SpoolDirectory(folder, 10**10, 10**12).open("e", LOG, EXPIRES, tail=4, log_bytes=None)
    return GrowingLog(LOG, EXPIRES, spool)


def items() -> list[tuple[int, int]]:
    """The items of segments, with first byte and size: also those that readers skip."""
    table = store.models.Segment
    return [(int(item.First), int(item.Size)) for item in table.query(LOG) if item.First >= 0]


def test_a_few_bytes_are_one_request_and_no_object(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.spool.write(b"one")
    with count_costs(monkeypatch) as first:
        assert log.upload_pieces(hurry=False) == 1
    log.spool.write(b" two")
    with count_costs(monkeypatch) as second:
        assert log.upload_pieces(hurry=False) == 1
    assert (first.requests, second.requests) == ({"PutItem": 1}, {"UpdateItem": 1})
    assert (logged(LOG), items(), stored_objects("")) == (b"one two", [(0, 7)], {})
    assert log.upload_pieces(hurry=False) == 0


def test_an_item_grows_up_to_some_kib(log: GrowingLog) -> None:
    for size in (INLINE_BYTES - 1, 1, 1):
        log.spool.write(b"x" * size)
        log.upload_pieces(hurry=False)
    assert items() == [(0, INLINE_BYTES), (INLINE_BYTES, 1)]
    assert len(logged(LOG)) == INLINE_BYTES + 1


def test_an_append_whose_answer_was_lost_is_made_good(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.spool.write(b"one")
    log.upload_pieces(hurry=False)
    append = store.segments.append

    def deaf(*arguments: Any) -> bool:
        append(*arguments)
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(store.segments, "append", deaf)
        log.spool.write(b" two")
        with pytest.raises(ConnectionError):
            log.upload_pieces(hurry=False)
    log.spool.write(b" three")
    log.upload_pieces(hurry=False)
    log.spool.write(b" four")
    log.upload_pieces(hurry=False)
    assert logged(LOG) == b"one two three four"


def test_more_bytes_are_an_object_and_its_item(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.spool.write(MIDDLE)
    with count_costs(monkeypatch) as costs:
        assert log.upload_pieces(hurry=False) == 2
    assert costs.requests == {"PutObject": 1, "PutItem": 1}
    assert logged(LOG) == MIDDLE


def test_a_closed_file_is_one_segment_that_replaces_its_pieces(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for piece in (MIDDLE, b"few", MIDDLE):
        log.spool.write(piece)
        log.upload_pieces(hurry=False)
    log.spool.write(LARGE)
    log.spool.write(b"next")
    log.upload_pieces(hurry=True)
    with count_costs(monkeypatch) as costs:
        assert log.upload_large() == 1
    # One request deletes the items of all pieces but the first, in whose place the segment's is.
    assert costs.requests == {"PutObject": 1, "PutItem": 1, "BatchWriteItem": 1}
    size = 2 * len(MIDDLE) + 3 + MIN_PART_BYTES
    assert items() == [(0, size), (size, 4)]
    assert logged(LOG) == MIDDLE + b"few" + MIDDLE + LARGE + b"next"
    # Two pieces and what of the closed file was not uploaded before were objects too.
    garbage = log.take_garbage()
    assert len(garbage) == 3
    assert set(stored_objects("segments/")) - set(garbage) == {f"segments/{LOG}/0-{size}"}
    assert log.take_garbage() == []


def test_a_piece_does_not_go_over_the_end_of_its_file(log: GrowingLog) -> None:
    log.spool.write(LARGE[:-1])
    log.upload_pieces(hurry=True)
    log.spool.write(b"x")
    log.spool.write(b"next")
    log.upload_pieces(hurry=True)
    log.upload_large()
    assert items() == [(0, MIN_PART_BYTES), (MIN_PART_BYTES, 4)]
    assert logged(LOG) == LARGE + b"next"


def test_a_file_that_was_uploaded_as_one_piece_keeps_its_object(log: GrowingLog) -> None:
    """The piece and the segment are the same: they have the same key."""
    log.spool.write(LARGE)
    log.upload_pieces(hurry=True)
    log.upload_large()
    assert log.take_garbage() == []
    assert logged(LOG) == LARGE


def test_a_file_with_many_pieces_is_closed_as_soon_as_it_can_be(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "_MAX_PIECES", 2)
    log.spool.kept = log.spool._first = log.spool.uploaded = 500 * MIN_PART_BYTES
    for piece in (MIDDLE, MIDDLE, LARGE):
        assert log.spool.closed_file is None
        log.spool.write(piece)
        log.upload_pieces(hurry=True)
    assert log.spool.closed_file is not None


@pytest.mark.parametrize("output", [b"short", LARGE, LARGE + b"rest", LARGE + LARGE])
@pytest.mark.parametrize("pieces", [False, True])
def test_in_the_end_the_whole_log_is_one_object(
    log: GrowingLog, output: bytes, pieces: bool
) -> None:
    for start in range(0, len(output), MIN_PART_BYTES):
        log.spool.write(output[start : start + MIN_PART_BYTES])
        if pieces:
            log.upload_pieces(hurry=True)
    log.finish()
    log.note_whole(known_as_whole=True)
    key = logs.whole_key(LOG, len(output))
    assert stored_objects("logs/") == {key: len(output)}
    assert logs.read(key, 10**9) == output
    # If there are no segments, only the result says where the log is.
    has_segments = pieces or len(output) >= MIN_PART_BYTES
    assert store.segments.get_state(LOG) == LogState(len(output) if has_segments else 0)
    logs.delete(log.take_garbage())
    assert stored_objects("segments/") == {}
    assert log.spool.uploaded == len(output)


def test_segments_stay_until_readers_can_know_of_the_whole(log: GrowingLog) -> None:
    """DynamoDB may be away when the log is put together: then the segments are all that readers find."""
    log.spool.write(LARGE)
    log.upload_large()
    log.finish()
    assert log.take_garbage() == []
    assert logged(LOG) == LARGE
    log.note_whole(known_as_whole=True)
    assert log.take_garbage() == [f"segments/{LOG}/0-{MIN_PART_BYTES}"]


def test_a_log_without_output_is_no_object(log: GrowingLog) -> None:
    log.finish()
    log.note_whole(known_as_whole=True)
    assert (stored_objects(""), store.segments.get_state(LOG)) == ({}, LogState())


def test_readers_of_an_incomplete_output_are_told_where_it_is(log: GrowingLog) -> None:
    log.spool.write(b"half")
    log.finish()
    log.note_whole(known_as_whole=False)
    assert store.segments.get_state(LOG) == LogState(assembled=4)


def test_a_log_is_put_together_once(log: GrowingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.spool.write(LARGE)
    log.finish()
    with count_costs(monkeypatch) as costs:
        log.finish()
    assert costs.requests == {}


def test_what_a_log_has_by_now_is_put_together_while_it_grows(log: GrowingLog) -> None:
    for chunk in (LARGE, LARGE, b"so far"):
        log.spool.write(chunk)
    log.assemble_so_far()
    size = 2 * MIN_PART_BYTES + 6
    assert store.segments.get_state(LOG).assembled == size
    assert logs.read(logs.whole_key(LOG, size), size) == LARGE + LARGE + b"so far"
    log.spool.write(b", and more")
    log.upload_pieces(hurry=True)
    assert total(store.segments.list_segments(LOG)[1]) == size + 10
    log.finish()
    assert logged(LOG) == LARGE + LARGE + b"so far, and more"


def test_what_is_put_together_has_no_gap_if_a_file_is_closed_meanwhile(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_large = log.upload_large
    printed = iter([LARGE, b"rest"])

    def print_after() -> int:
        requests = upload_large()
        for chunk in printed:
            log.spool.write(chunk)
        return requests

    monkeypatch.setattr(log, "upload_large", print_after)
    log.spool.write(b"first")
    log.assemble_so_far()
    size = store.segments.get_state(LOG).assembled
    assert logs.read(logs.whole_key(LOG, size), size) == b"first" + LARGE + b"rest"


def test_a_command_that_prints_on_and_on_does_not_prolong_an_upload(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = log.spool.note_uploaded
    printed = iter([b"more"] * 100)

    def print_meanwhile(end: int) -> None:
        note(end)
        log.spool.write(next(printed))

    monkeypatch.setattr(log.spool, "note_uploaded", print_meanwhile)
    log.spool.write(b"first")
    assert log.upload_pieces(hurry=True) == 1
    assert log.spool.waiting == len(b"more")


def test_a_piece_may_be_replaced_while_it_becomes_longer(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = store.segments.append

    def replaced(*arguments: Any) -> bool:
        answer = append(*arguments)
        log.spool.write(LARGE)
        log.upload_large()
        return answer

    monkeypatch.setattr(store.segments, "append", replaced)
    log.spool.write(b"one")
    log.upload_pieces(hurry=True)
    log.spool.write(b" two")
    assert log.upload_pieces(hurry=True) == 1
    assert logged(LOG) == b"one two" + LARGE
    log.spool.write(b"next")
    log.upload_pieces(hurry=True)
    log.finish()
    assert logged(LOG) == b"one two" + LARGE + b"next"


@pytest.mark.parametrize("step", ["put_segment", "add", "append", "delete", "assemble"])
@pytest.mark.parametrize("after", [False, True])
def test_a_failure_at_any_step_loses_nothing(
    log: GrowingLog, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    owner = logs if step in ("put_segment", "assemble") else store.segments
    call = getattr(owner, step)
    failures = iter([True])

    def stumbling(*arguments: Any) -> Any:
        answer = call(*arguments) if after else None
        if next(failures, False):
            raise ConnectionError
        return answer if after else call(*arguments)

    def insist(do: Callable[[], object]) -> None:
        try:
            do()
        except ConnectionError:
            do()

    monkeypatch.setattr(owner, step, stumbling)
    expected = b""
    for chunk in (b"a few", b"more", MIDDLE, LARGE, b"then", b"the", b"end"):
        log.spool.write(chunk)
        expected += chunk
        insist(lambda: log.upload_pieces(hurry=True))
        assert logged(LOG) == expected
        insist(log.upload_large)
        assert logged(LOG) == expected
    insist(log.finish)
    assert next(failures, None) is None
    assert logs.read(logs.whole_key(LOG, len(expected)), 10**9) == expected
