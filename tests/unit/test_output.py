"""The spool and the growing object: the log is every byte, whatever fails in between."""

import io
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from chalicelib import logs
from chalicelib.aws import client
from chalicelib.config import settings
from chalicelib.logs import MIN_PART, GrowingObject
from worker.engine import OutputCut, _frames
from worker.output import Spool


def stored() -> bytes:
    return bytes(client("s3").get_object(Bucket=settings.log_bucket, Key="k")["Body"].read())


@pytest.mark.usefixtures("aws")
def test_a_log_grows_through_all_sizes(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", GrowingObject("k"), tail=4, limit=10**9)
    expected = b""
    for count in (10, 20, MIN_PART, 1, 5, 2 * MIN_PART, 3):
        chunk = bytes([count % 251]) * count
        expected += chunk
        spool.write(chunk)
        spool.flush()
        assert stored() == expected
    assert (spool.size, spool.tail) == (len(expected), expected[-4:])
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_upload_is_made_good_by_the_next(tmp_path: Path) -> None:
    log = create_autospec(GrowingObject, instance=True)
    written: list[bytes] = []
    log.write.side_effect = [ConnectionError, None, None]
    spool = Spool(tmp_path / "s", log, tail=4, limit=10**9)
    spool.write(b"x" * MIN_PART)
    with pytest.raises(ConnectionError):
        spool.flush()
    spool.write(b"yz")
    log.write.side_effect = lambda segment: written.append(
        segment if isinstance(segment, bytes) else segment.read()
    )
    spool.flush()
    assert written == [b"x" * MIN_PART, b"yz"]
    log.settle.assert_called_once_with(MIN_PART)
    spool.flush()
    assert len(written) == 2


@pytest.mark.parametrize(
    ("seconds", "after", "in_doubt"), [(5, 10, True), (1, 10, False), (5, 3 * 1024**2, False)]
)
def test_a_full_spool_holds_the_writer_until_a_flush_and_says_if_that_was_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, after: int, in_doubt: bool
) -> None:
    clock = iter([0, seconds])
    monkeypatch.setattr("worker.output.time", SimpleNamespace(monotonic=lambda: next(clock)))
    spool = Spool(tmp_path / "s", create_autospec(GrowingObject, instance=True), 4, limit=10)
    spool.write(b"x" * 10)
    writer = threading.Thread(target=spool.write, args=(b"x" * after,))
    writer.start()
    writer.join(0.05)
    assert writer.is_alive()
    spool.flush()
    writer.join(5)
    assert not writer.is_alive()
    assert spool.size == 10 + after
    assert spool.end_in_doubt == in_doubt


@pytest.mark.parametrize("size", [1, logs.MAX_PART, logs.MAX_PART + 1, 3 * logs.MAX_PART + 7])
def test_copied_parts_cover_the_base_and_are_sizes_that_s3_takes(size: int) -> None:
    parts = logs._ranges(size)
    assert [number for number, _, _ in parts] == list(range(1, len(parts) + 1))
    assert parts[0][1] == 0
    assert parts[-1][2] == size - 1
    assert all(first == last + 1 for (_, _, last), (_, first, _) in pairwise(parts))
    assert all(last - first + 1 <= logs.MAX_PART for _, first, last in parts)
    assert len(parts) == 1 or all(last - first + 1 >= MIN_PART for _, first, last in parts)


def frame(payload: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def read(data: bytes, buffer: int = 16) -> bytes:
    return b"".join(_frames(io.BufferedReader(io.BytesIO(data), buffer)))


def test_frames_of_both_streams_are_joined_as_they_came() -> None:
    assert read(frame(b"out") + frame(b"err", 2) + frame(b"x" * 1000)) == b"outerr" + b"x" * 1000


@pytest.mark.parametrize("kept", [3, 8, 10])
def test_a_stream_that_breaks_off_within_a_frame_is_noticed(kept: int) -> None:
    with pytest.raises(OutputCut):
        read(frame(b"whole") + frame(b"broken")[:kept])
