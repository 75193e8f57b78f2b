"""The spool: the log is every byte, whatever fails in between, and the disk is given back."""

import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

from chalicelib.clients.aws import client
from chalicelib.clients.logs import MIN_PART_BYTES, GrowingObject
from chalicelib.config import settings
from worker.output.spool import LAST_BYTES, Spool, SpoolDirectory, UnsafeFolder

LOG = 10**9


def open_spool(path: Path, log: Any, limit: int = 10**9, log_bytes: int = LOG) -> Spool:
    """A spool that remembers the last four bytes, in a directory for itself."""
    return SpoolDirectory(path, limit, log_bytes).open("s", log, tail=4, log_bytes=None)


def files(path: Path) -> list[Path]:
    """The spool files that are left."""
    return [file for file in path.rglob("s.*") if file.is_file()]


def stored() -> bytes:
    return bytes(client("s3").get_object(Bucket=settings.log_bucket, Key="k")["Body"].read())


@pytest.mark.usefixtures("aws")
def test_a_log_grows_through_all_sizes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, GrowingObject("k"))
    expected = b""
    for count in (10, 20, MIN_PART_BYTES, 1, 5, 2 * MIN_PART_BYTES, 3):
        chunk = bytes([count % 251]) * count
        expected += chunk
        spool.write(chunk)
        spool.flush()
        assert stored() == expected
    assert (spool.size, spool.tail) == (len(expected), expected[-4:])
    spool.close()
    assert files(tmp_path) == []


def test_a_failed_upload_is_made_good_by_the_next(tmp_path: Path) -> None:
    log = create_autospec(GrowingObject, instance=True)
    written: list[bytes] = []
    log.write.side_effect = [ConnectionError, None, None]
    spool = open_spool(tmp_path, log)
    spool.write(b"x" * MIN_PART_BYTES)
    with pytest.raises(ConnectionError):
        spool.flush()
    spool.write(b"yz")
    log.write.side_effect = lambda segment: written.append(
        segment if isinstance(segment, bytes) else segment.read()
    )
    spool.flush()
    assert written == [b"x" * MIN_PART_BYTES, b"yz"]
    log.settle.assert_called_once_with(MIN_PART_BYTES)
    spool.flush()
    assert len(written) == 2


@pytest.mark.parametrize(
    ("seconds", "after", "in_doubt"), [(5, 10, True), (1, 10, False), (5, 3 * 1024**2, False)]
)
def test_a_full_spool_holds_its_writer_and_says_if_that_took_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, after: int, in_doubt: bool
) -> None:
    # At the beginning and the end of each of the two writes.
    clock = iter([0, 0, 0, seconds])
    monkeypatch.setattr("worker.output.spool.time", SimpleNamespace(monotonic=lambda: next(clock)))
    spool = open_spool(tmp_path, create_autospec(GrowingObject, instance=True), limit=20)
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


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path: Path, log: Any) -> None:
    spool = open_spool(tmp_path, log)
    disk = spool._file

    class NearlyFull:
        def write(self, chunk: memoryview) -> int:
            return disk.write(chunk[:3])

    spool._file = NearlyFull()  # type: ignore[assignment]
    spool.write(b"0123456789")
    assert (spool.size, spool.tail) == (10, b"6789")
    spool.flush()
    assert log.parts == [b"0123456789"]


@pytest.fixture
def log() -> Any:
    """Where the log goes; what was written of it is in `parts`."""
    fake = create_autospec(GrowingObject, instance=True)
    fake.parts = []

    def write(segment: Any) -> None:
        fake.parts.append(segment if isinstance(segment, bytes) else segment.read())

    fake.write.side_effect = write
    return fake


@pytest.fixture
def spool(tmp_path: Path, log: Any) -> Spool:
    return open_spool(tmp_path, log)


def test_the_tail_is_the_end_of_a_short_output_too(spool: Spool) -> None:
    assert spool.tail == b""
    spool.write(b"ab")
    assert spool.tail == b"ab"
    spool.write(b"cdef")
    assert spool.tail == b"cdef"


def test_a_long_output_is_not_kept_in_memory(spool: Spool) -> None:
    for _ in range(5):
        spool.write(b"x" * 1024**2)
    spool.write(b"end!")
    assert spool.tail == b"end!"
    assert len(spool._tail) <= 2 * 4


def test_a_segment_that_has_not_grown_is_not_uploaded_again(spool: Spool, log: Any) -> None:
    spool.flush()
    spool.write(b"x")
    spool.flush()
    spool.flush()
    assert log.parts == [b"x"]


def test_a_segment_below_what_s3_copies_is_uploaded_whole_again(spool: Spool, log: Any) -> None:
    for chunk in (b"one", b" two"):
        spool.write(chunk)
        spool.flush()
    assert log.parts == [b"one", b"one two"]
    log.settle.assert_not_called()


def test_a_full_segment_is_settled_and_its_file_deleted(
    spool: Spool, log: Any, tmp_path: Path
) -> None:
    spool.write(b"x" * MIN_PART_BYTES)
    spool.flush()
    log.settle.assert_called_once_with(MIN_PART_BYTES)
    assert [path.stat().st_size for path in files(tmp_path)] == [0]


def test_a_segment_one_byte_too_small_stays_open(spool: Spool, log: Any) -> None:
    spool.write(b"x" * (MIN_PART_BYTES - 1))
    spool.flush()
    log.settle.assert_not_called()


def test_segments_that_failed_go_first_and_in_order(spool: Spool, log: Any) -> None:
    write, log.write.side_effect = log.write.side_effect, ConnectionError
    for letter in (b"a", b"b"):
        spool.write(letter * MIN_PART_BYTES)
        with pytest.raises(ConnectionError):
            spool.flush()
    spool.write(b"c")
    log.write.side_effect = write
    spool.flush()
    assert [part[:1] for part in log.parts] == [b"a", b"b", b"c"]
    assert sum(map(len, log.parts)) == spool.size


def test_room_is_counted_right_after_uploads_of_parts_and_of_the_whole(spool: Spool) -> None:
    spool.write(b"x" * 10)
    spool.flush()
    spool.write(b"x" * MIN_PART_BYTES)
    spool.flush()
    spool.write(b"yz")
    assert spool.waiting == 2
    spool.flush()
    assert spool.waiting == 0


def test_closing_frees_the_room_of_bytes_that_were_never_uploaded(
    spool: Spool, log: Any, tmp_path: Path
) -> None:
    log.write.side_effect = ConnectionError
    spool.write(b"x" * MIN_PART_BYTES)
    with pytest.raises(ConnectionError):
        spool.flush()
    spool.write(b"more")
    spool.close()
    assert files(tmp_path) == []


def test_stored_bytes_are_those_that_do_not_wait(spool: Spool, log: Any) -> None:
    spool.write(b"x" * 10)
    spool.flush()
    spool.write(b"y" * 3)
    assert (spool.size, spool.stored) == (13, 10)


def test_one_command_leaves_room_for_the_others(tmp_path: Path, log: Any) -> None:
    room = SpoolDirectory(tmp_path, limit=100, log_bytes=LOG)
    greedy, modest = (room.open(name, log, tail=4, log_bytes=None) for name in ("greedy", "modest"))
    greedy.write(b"x" * 50)
    blocked = threading.Thread(target=greedy.write, args=(b"x",))
    blocked.start()
    for _ in range(3):
        modest.write(b"y" * 10)
    blocked.join(0.05)
    assert blocked.is_alive()
    modest.close()
    blocked.join(0.05)
    assert blocked.is_alive()
    greedy.flush()
    blocked.join(5)
    assert not blocked.is_alive()


def test_leftovers_of_a_dead_process_are_removed_but_not_a_living_ones(
    tmp_path: Path, log: Any
) -> None:
    dead, alive = SpoolDirectory(tmp_path, 10, LOG), SpoolDirectory(tmp_path, 10, LOG)
    for room in (dead, alive):
        room.open("s", log, tail=4, log_bytes=None).write(b"x")
    dead._lock.close()
    SpoolDirectory(tmp_path, 10, LOG)
    assert len(files(tmp_path)) == 1
    alive.close()
    assert files(tmp_path) == []


def test_directories_made_and_closed_at_once_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    def come_and_go(_: int) -> bool:
        room = SpoolDirectory(tmp_path, 10, LOG)
        usable = room._path.exists()
        room.close()
        return usable

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(come_and_go, range(200)))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder like /var/tmp: anybody may make things in it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def as_nobody(script: str, *arguments: Path) -> None:
    """Runs a shell's script as another user; only root can."""
    subprocess.run(["sh", "-ec", script, "sh", *arguments], user="nobody", check=True)


def test_a_folder_that_another_user_prepared_is_refused_and_left_as_it_is(
    open_folder: Path, tmp_path: Path
) -> None:
    victim, spools = tmp_path / "victim", open_folder / "appjobs"
    victim.write_text("precious")
    as_nobody('mkdir "$1"; ln -s "$2" "$1/lock"', spools, victim)
    with pytest.raises(UnsafeFolder, match="belongs to user"):
        SpoolDirectory(spools, 10, LOG)
    assert victim.read_text() == "precious"


def test_a_link_in_the_folders_place_is_refused(open_folder: Path, tmp_path: Path) -> None:
    as_nobody('ln -s "$2" "$1/appjobs"', open_folder, tmp_path)
    with pytest.raises(UnsafeFolder, match="links are not followed"):
        SpoolDirectory(open_folder / "appjobs", 10, LOG)


@pytest.mark.parametrize("mode", [0o1777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(UnsafeFolder, match="others may write"):
        SpoolDirectory(tmp_path, 10, LOG)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        SpoolDirectory(tmp_path, 10, LOG)
    assert victim.read_text() == "precious"


def test_no_other_user_can_read_the_output(tmp_path: Path, log: Any) -> None:
    before = os.umask(0)
    try:
        parent = tmp_path / "new" / "spools"
        SpoolDirectory(parent, 10, LOG).open("s", log, tail=4, log_bytes=None).write(b"x")
    finally:
        os.umask(before)
    modes = [path.lstat().st_mode & 0o777 for path in (parent, *parent.rglob("*"))]
    assert set(modes) == {0o700, 0o600}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("limit", [10, MIN_PART_BYTES - 1, MIN_PART_BYTES + 10])
@pytest.mark.parametrize("beyond", [0, 1, LAST_BYTES, LAST_BYTES + 1, 3 * LAST_BYTES + 5])
@pytest.mark.parametrize("size", [300_000, 10**7])
def test_a_log_that_is_too_long_is_its_beginning_and_its_end(
    tmp_path: Path, limit: int, beyond: int, size: int
) -> None:
    output = random.Random(limit + beyond).randbytes(limit + beyond)
    spool = open_spool(tmp_path, GrowingObject("k"), log_bytes=limit)
    for start in range(0, len(output), size):
        spool.write(output[start : start + size])
        spool.flush()
    assert stored() == output[:limit]
    spool.complete()
    spool.flush()
    end = output[limit:][-LAST_BYTES:]
    assert stored() == output[:limit] + end
    assert (spool.stored, spool.size) == (limit + len(end), len(output))
    missing = max(beyond - LAST_BYTES, 0)
    assert spool.dropped == ({"Bytes": missing, "After": limit} if missing else None)
    assert spool.tail == output[-4:]


def test_output_beyond_its_limit_takes_no_disk_little_memory_and_no_wait(
    tmp_path: Path, log: Any
) -> None:
    spool = open_spool(tmp_path, log, limit=100, log_bytes=40)
    for _ in range(20):
        spool.write(b"x" * LAST_BYTES)
    assert spool.size == 20 * LAST_BYTES
    assert sum(file.stat().st_size for file in files(tmp_path)) == 40
    assert len(spool._tail) <= 2 * LAST_BYTES
    assert spool.waiting == 40


@pytest.mark.parametrize(("of_the_job", "kept"), [(None, 8), (5, 5), (9, 8)])
def test_a_job_lowers_the_limit_and_does_not_raise_it(
    tmp_path: Path, log: Any, of_the_job: int | None, kept: int
) -> None:
    spool = SpoolDirectory(tmp_path, 100, 8).open("s", log, tail=4, log_bytes=of_the_job)
    spool.write(b"0123456789")
    spool.flush()
    assert log.parts == [b"0123456789"[:kept]]
