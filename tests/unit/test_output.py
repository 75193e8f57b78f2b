"""The spool: each byte of the output is on disk until it is uploaded, and the disk is given back."""

import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from chalicelib.domain.segments import MIN_PART_BYTES
from worker.output.folder import UnsafeFolder
from worker.output.spool import LAST_BYTES, Spool, SpoolDirectory

LOG = 10**12
MIB = 1024**2


def open_in(room: SpoolDirectory, name: str = "s", log_bytes: int | None = None) -> Spool:
    """A spool that remembers the last four bytes."""
    return room.open(name, "j/1.000000/c", 2_000_000_000, tail=4, log_bytes=log_bytes)


def open_spool(path: Path, limit: int = 10**9, log_bytes: int = LOG) -> Spool:
    """A spool in a directory for itself."""
    return open_in(SpoolDirectory(path, limit, log_bytes))


def files(path: Path) -> list[Path]:
    """The files of output that are left."""
    return sorted(file for file in path.rglob("s.*") if file.suffix != ".log")


def upload(spool: Spool, also_closed: bool = True) -> bytes:
    """Uploads what is new, in pieces; returns it."""
    content = b""
    while new := spool.open_new(also_closed):
        _, first, section = new
        with section:
            assert first == spool.uploaded
            content += section.read()
        spool.note_uploaded(first + len(section))
    return content


def upload_closed(spool: Spool) -> list[int]:
    """Uploads the closed files as a whole; returns their sizes."""
    sizes = []
    while file := spool.closed_file:
        sizes.append(file.size)
        spool.remove(file)
    return sizes


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return open_spool(tmp_path)


def test_what_came_since_the_last_upload_is_uploaded(spool: Spool, tmp_path: Path) -> None:
    assert upload(spool) == b""
    for chunk in (b"one", b" two"):
        spool.write(chunk)
        assert upload(spool) == chunk
    assert upload(spool) == b""
    assert (spool.size, spool.kept, spool.uploaded, spool.tail) == (7, 7, 7, b" two")
    spool.close()
    assert list(tmp_path.rglob("s.*")) == []


def test_a_section_is_what_there_was_when_it_was_opened(spool: Spool) -> None:
    spool.write(b"0123")
    upload(spool)
    spool.write(b"456789")
    new = spool.open_new(True)
    assert new
    file_first, first, section = new
    spool.write(b"more")
    assert (file_first, first, len(section)) == (0, 4, 6)
    assert (section.read(4), section.read(100), section.read(1)) == (b"4567", b"89", b"")
    section.seek(0)
    assert section.tell() == 0
    section.seek(-1, os.SEEK_END)
    assert section.read() == b"9"
    section.close()


def test_a_file_is_closed_as_soon_as_s3_can_copy_it(spool: Spool, tmp_path: Path) -> None:
    needs: list[int] = []
    spool.on_need = lambda: needs.append(spool.kept)
    spool.write(b"x" * (MIN_PART_BYTES - 1))
    assert (spool.closed_file, needs) == (None, [])
    spool.write(b"yz")
    assert needs == [MIN_PART_BYTES + 1]
    spool.write(b"next")
    assert upload_closed(spool) == [MIN_PART_BYTES + 1]
    assert upload(spool) == b"next"
    assert [path.name for path in files(tmp_path)] == [f"s.{MIN_PART_BYTES + 1}"]


def test_files_grow_with_the_log(spool: Spool) -> None:
    sizes = []
    for _ in range(250):
        spool.write(b"x" * MIB)
        sizes += upload_closed(spool)
    assert sizes == sorted(sizes)
    assert sizes[:31] == [5 * MIB] * 31
    assert sizes[-1] == 8 * MIB


def test_if_there_is_little_room_files_are_closed_earlier(tmp_path: Path) -> None:
    room = SpoolDirectory(tmp_path, limit=20 * MIB, log_bytes=LOG)
    spool = open_in(room)
    spool.kept = 64 * 1024**3
    closed: list[int] = []
    spool.on_need = lambda: closed.append(spool.held)
    for _ in range(7):
        spool.write(b"x" * MIB)
    assert closed == [7 * MIB]


def test_what_comes_after_a_closed_file_waits_if_there_is_no_hurry(spool: Spool) -> None:
    spool.write(b"x" * MIN_PART_BYTES)
    spool.write(b"y")
    assert spool.open_new(also_closed=False) is None
    assert upload(spool, also_closed=True) == b"x" * MIN_PART_BYTES + b"y"
    assert upload_closed(spool) == [MIN_PART_BYTES]
    assert spool.uploaded == MIN_PART_BYTES + 1


@pytest.mark.parametrize(
    ("seconds", "after", "in_doubt"), [(5, 10, True), (1, 10, False), (5, 3 * 1024**2, False)]
)
def test_a_full_spool_holds_its_writer_and_says_if_that_took_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, after: int, in_doubt: bool
) -> None:
    # At the beginning and the end of each of the two writes.
    clock = iter([0, 0, 0, seconds])
    monkeypatch.setattr("worker.output.spool.time", SimpleNamespace(monotonic=lambda: next(clock)))
    spool = open_spool(tmp_path, limit=20)
    asked = threading.Event()
    spool.on_need = asked.set
    spool.write(b"x" * 10)
    writer = threading.Thread(target=spool.write, args=(b"x" * after,))
    writer.start()
    assert asked.wait(10)
    assert spool.is_full
    upload(spool)
    writer.join(5)
    assert not writer.is_alive()
    assert (spool.size, spool.is_full, spool.end_in_doubt) == (10 + after, False, in_doubt)


def test_a_full_spool_whose_file_is_large_enough_closes_it(tmp_path: Path) -> None:
    """What is uploaded of an open file is on the disk all the same, and only a part of it is free."""
    spool = open_spool(tmp_path, limit=2 * MIN_PART_BYTES)
    spool.kept = 64 * 1024**3
    closed = threading.Event()
    spool.on_need = lambda: spool.closed_file and closed.set()
    spool.write(b"x" * (MIN_PART_BYTES - 1))
    writer = threading.Thread(target=lambda: [spool.write(b"xy") for _ in range(2)])
    writer.start()
    assert closed.wait(10)
    upload_closed(spool)
    writer.join(5)
    assert not writer.is_alive()


def test_a_disk_that_takes_a_part_at_a_time_gets_all(spool: Spool) -> None:
    disk = spool._file

    class NearlyFull:
        def write(self, chunk: memoryview) -> int:
            return disk.write(chunk[:3])

    spool._file = NearlyFull()  # type: ignore[assignment]
    spool.write(b"0123456789")
    assert (spool.size, spool.tail) == (10, b"6789")
    assert upload(spool) == b"0123456789"


def test_a_command_runs_even_if_a_full_disk_takes_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(value: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("worker.output.spool.json", SimpleNamespace(dumps=full))
    spool = open_spool(tmp_path)
    spool.write(b"output")
    assert upload(spool) == b"output"


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


def test_what_is_on_the_disk_counts_but_for_the_little_that_is_uploaded(spool: Spool) -> None:
    spool.write(b"x" * 10)
    assert (spool.held, spool.waiting) == (10, 10)
    upload(spool)
    assert (spool.held, spool.waiting) == (0, 0)
    # Once it is closed, all of it has to be uploaded again.
    spool.write(b"x" * MIN_PART_BYTES)
    assert (spool.held, spool.waiting) == (MIN_PART_BYTES + 10, MIN_PART_BYTES)
    spool.write(b"yz")
    assert spool.held == MIN_PART_BYTES + 12
    upload_closed(spool)
    assert (spool.held, spool.waiting) == (2, 2)
    spool.close()
    assert (spool.held, spool._directory._held) == (0, 0)


def test_much_that_is_uploaded_and_not_closed_counts_too(spool: Spool) -> None:
    spool.kept = spool._first = 64 * 1024**3
    spool.uploaded = spool.kept
    spool.write(b"x" * (MIN_PART_BYTES + 7))
    upload(spool)
    assert (spool.held, spool.waiting) == (7, 0)


def test_closing_gives_back_the_room_of_bytes_that_were_never_uploaded(
    spool: Spool, tmp_path: Path
) -> None:
    spool.write(b"x" * MIN_PART_BYTES)
    spool.write(b"more")
    spool.close()
    assert files(tmp_path) == []
    assert spool._directory._held == 0


def test_one_command_leaves_room_for_the_others(tmp_path: Path) -> None:
    room = SpoolDirectory(tmp_path, limit=100, log_bytes=LOG)
    greedy, modest = open_in(room, "greedy"), open_in(room, "modest")
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
    upload(greedy)
    blocked.join(5)
    assert not blocked.is_alive()


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


def test_no_other_user_can_read_the_output(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        parent = tmp_path / "new" / "spools"
        open_spool(parent, 10).write(b"x")
    finally:
        os.umask(before)
    modes = [path.lstat().st_mode & 0o777 for path in (parent, *parent.rglob("*"))]
    assert set(modes) == {0o700, 0o600}


@pytest.mark.parametrize("limit", [10, MIN_PART_BYTES - 1, MIN_PART_BYTES + 10])
@pytest.mark.parametrize("beyond", [0, 1, LAST_BYTES, LAST_BYTES + 1, 3 * LAST_BYTES + 5])
@pytest.mark.parametrize("size", [300_000, 10**7])
def test_a_log_that_is_too_long_is_its_beginning_and_its_end(
    tmp_path: Path, limit: int, beyond: int, size: int
) -> None:
    output = random.Random(limit + beyond).randbytes(limit + beyond)
    spool = open_spool(tmp_path, log_bytes=limit)
    for start in range(0, len(output), size):
        spool.write(output[start : start + size])
    logged = upload(spool)
    assert logged == output[:limit]
    spool.complete()
    logged += upload(spool)
    end = output[limit:][-LAST_BYTES:]
    assert logged == output[:limit] + end
    assert (spool.kept, spool.size) == (limit + len(end), len(output))
    missing = max(beyond - LAST_BYTES, 0)
    assert spool.dropped == ({"Bytes": missing, "After": limit} if missing else None)
    assert spool.tail == output[-4:]


def test_output_beyond_its_limit_takes_no_disk_little_memory_and_no_wait(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, limit=100, log_bytes=40)
    for _ in range(20):
        spool.write(b"x" * LAST_BYTES)
    assert spool.size == 20 * LAST_BYTES
    assert sum(file.stat().st_size for file in files(tmp_path)) == 40
    assert len(spool._tail) <= 2 * LAST_BYTES
    assert spool.waiting == 40


@pytest.mark.parametrize(("of_the_job", "kept"), [(None, 8), (5, 5), (9, 8)])
def test_a_job_lowers_the_limit_and_does_not_raise_it(
    tmp_path: Path, of_the_job: int | None, kept: int
) -> None:
    spool = open_in(SpoolDirectory(tmp_path, 100, 8), log_bytes=of_the_job)
    spool.write(b"0123456789")
    assert upload(spool) == b"0123456789"[:kept]
