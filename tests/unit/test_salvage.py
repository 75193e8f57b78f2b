"""What dead workers left on the disk: it goes into their logs, and then it is removed."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import INLINE_BYTES, MIN_PART_BYTES, Segment
from tests.support.clock import NOW, Clock
from tests.support.logged import logged, stored_objects
from tests.support.waiting import wait_until
from worker.output.growth import GrowingLog
from worker.output.salvage import Salvager, put_together
from worker.output.spool import SpoolDirectory

pytestmark = pytest.mark.usefixtures("aws", "clock")

LOG = "j/1.000000/c"
EXPIRES = int(NOW) + 1000
LARGE = b"x" * MIN_PART_BYTES
MIDDLE = b"y" * (INLINE_BYTES + 1)


class Worker:
    """A process with a spool for each log. It dies at the end of the test at the latest."""

    def __init__(self, folder: Path) -> None:
        self.spools = SpoolDirectory(folder, 10**9, 10**9)
        self.count = 0

    def open(self, log: str = LOG, expires: int = EXPIRES) -> GrowingLog:
        self.count += 1
        spool = self.spools.open(f"e{self.count}", log, expires, tail=4, log_bytes=None)
        return GrowingLog(log, expires, spool)

    def die(self) -> None:
        self.spools._lock.close()


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def read_segments(log: str) -> bytes:
    """What a reader finds who has only the segments."""
    return logs.read_segments(log, store.segments.list_segments(log)[1])


def left(folder: Path) -> list[str]:
    """The files that are there beside the locks of living processes."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


@pytest.mark.parametrize("uploaded", [0, 1, 2, 3])
@pytest.mark.parametrize("chunks", [[b"a", b"few", b"bytes"], [MIDDLE, LARGE, MIDDLE], [LARGE] * 3])
def test_what_a_dead_worker_had_not_uploaded_goes_into_the_log(
    worker: Worker, tmp_path: Path, chunks: list[bytes], uploaded: int
) -> None:
    log = worker.open()
    for number, chunk in enumerate(chunks):
        log.spool.write(chunk)
        if number < uploaded:
            log.upload_pieces(hurry=True)
    before = stored_objects("segments/")
    worker.die()
    Salvager(tmp_path).salvage(LOG)
    assert logged(LOG) == b"".join(chunks)
    assert left(tmp_path) == []
    # What was there is not uploaded once more.
    more = stored_objects("segments/").items() - before.items()
    assert sum(size for _, size in more) <= sum(map(len, chunks[uploaded:]))


def test_a_worker_that_starts_salvages_all_logs(worker: Worker, tmp_path: Path) -> None:
    for name in "ab":
        worker.open(f"j/1.000000/{name}").spool.write(name.encode())
    worker.die()
    Salvager(tmp_path).claim()
    wait_until(lambda: not list(tmp_path.glob("*/")))
    assert [logged(f"j/1.000000/{name}") for name in "ab"] == [b"a", b"b"]


def test_what_is_of_a_living_worker_is_left_alone(worker: Worker, tmp_path: Path) -> None:
    worker.open().spool.write(b"x")
    Salvager(tmp_path).salvage(LOG)
    assert (logged(LOG), left(tmp_path)) == (b"", ["e1.0", "e1.log"])


def test_a_worker_that_starts_does_not_wait_for_aws(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    listing = store.segments.list_segments

    def away(log: str) -> Any:
        if not back.is_set():
            raise ConnectionError
        return listing(log)

    monkeypatch.setattr(store.segments, "list_segments", away)
    worker.open().spool.write(b"late")
    worker.die()
    salvager = Salvager(tmp_path)
    salvager.claim()
    with pytest.raises(ConnectionError):
        salvager.salvage(LOG)
    assert left(tmp_path) == ["e1.0", "e1.log"]
    back.set()
    wait_until(lambda: not list(tmp_path.glob("*/")))
    assert logged(LOG) == b"late"


def test_one_spool_that_fails_does_not_hold_up_the_others(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    listing = store.segments.list_segments

    def stumbling(log: str) -> Any:
        tries.append(log)
        if log == LOG and len(tries) < 5:
            raise ConnectionError
        return listing(log)

    monkeypatch.setattr(store.segments, "list_segments", stumbling)
    for log in (LOG, "j/1.000000/other"):
        worker.open(log).spool.write(b"x")
    worker.die()
    Salvager(tmp_path).claim()
    wait_until(lambda: not list(tmp_path.glob("*/")))
    assert "j/1.000000/other" in tries[:2]
    assert tries.count(LOG) > 1
    assert logged(LOG) == logged("j/1.000000/other") == b"x"


@pytest.mark.parametrize(
    "label", [b"", b"{", b"[]", b'{"Log": "x"}', b'{"Log": 1, "ExpiresAt": "x"}']
)
def test_a_spool_whose_label_is_broken_is_removed_unread(
    worker: Worker, tmp_path: Path, label: bytes
) -> None:
    worker.open().spool.write(b"x")
    (path,) = tmp_path.glob("*/e1.log")
    path.write_bytes(label)
    worker.open("j/1.000000/other").spool.write(b"y")
    worker.die()
    Salvager(tmp_path).claim()
    wait_until(lambda: not list(tmp_path.glob("*/")))
    assert (logged(LOG), logged("j/1.000000/other")) == (b"", b"y")


def test_the_spool_of_a_log_that_has_expired_is_removed_unread(
    worker: Worker, tmp_path: Path, clock: Clock
) -> None:
    worker.open().spool.write(b"x")
    worker.die()
    clock.now = EXPIRES
    Salvager(tmp_path).salvage(LOG)
    assert (logged(LOG), left(tmp_path)) == (b"", [])


def test_what_comes_after_a_gap_is_not_uploaded(worker: Worker, tmp_path: Path) -> None:
    log = worker.open()
    for chunk in (LARGE, b"after"):
        log.spool.write(chunk)
    worker.die()
    (path,) = tmp_path.glob("*/e1.0")
    path.unlink()
    Salvager(tmp_path).salvage(LOG)
    assert (logged(LOG), left(tmp_path)) == (b"", [])


def test_a_log_that_is_whole_gets_no_segments(worker: Worker, tmp_path: Path) -> None:
    log = worker.open()
    log.spool.write(MIDDLE)
    log.finish()
    log.note_whole(known_as_whole=False)
    worker.die()
    Salvager(tmp_path).salvage(LOG)
    assert stored_objects("segments/") == {}
    assert (logged(LOG), left(tmp_path)) == (MIDDLE, [])


def test_what_was_put_together_need_not_be_in_segments(worker: Worker, tmp_path: Path) -> None:
    """Somebody wanted the log so far as one object; after that, it grew."""
    log = worker.open()
    log.spool.write(MIDDLE)
    log.upload_pieces(hurry=True)
    log.spool.write(b"more")
    log.assemble_so_far()
    log.spool.write(b"end")
    worker.die()
    Salvager(tmp_path).salvage(LOG)
    assert read_segments(LOG) == MIDDLE + b"moreend"


def test_a_log_that_was_put_together_without_the_rest_gets_it(
    worker: Worker, tmp_path: Path
) -> None:
    """A worker on another machine, or upkeep, ended the target before."""
    log = worker.open()
    log.spool.write(LARGE)
    log.spool.write(b"left")
    log.upload_large()
    state, spans = store.segments.list_segments(LOG)
    assert put_together(LOG, EXPIRES, state, spans) == MIN_PART_BYTES
    worker.die()
    Salvager(tmp_path).salvage(LOG)
    size = MIN_PART_BYTES + 4
    assert store.segments.get_state(LOG).assembled == size
    assert logs.read(logs.whole_key(LOG, size), size) == LARGE + b"left"


@pytest.mark.parametrize(("output", "assembled"), [(MIDDLE, len(MIDDLE)), (b"x" * INLINE_BYTES, 0)])
def test_a_long_log_is_put_together_although_its_command_runs_on(
    worker: Worker, tmp_path: Path, output: bytes, assembled: int
) -> None:
    """It does not grow any more. A short one is read from its segments."""
    worker.open().spool.write(output)
    worker.die()
    Salvager(tmp_path).salvage(LOG)
    assert store.segments.get_state(LOG).assembled == assembled
    assert logged(LOG) == output


def test_two_that_salvage_at_once_add_the_log_once(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[Segment] = []
    add = store.segments.add

    def watched(log: str, segment: Segment, expires: int) -> None:
        added.append(segment)
        add(log, segment, expires)

    monkeypatch.setattr(store.segments, "add", watched)
    worker.open().spool.write(MIDDLE)
    worker.die()
    salvager = Salvager(tmp_path)
    threads = [threading.Thread(target=salvager.salvage, args=(LOG,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert added == [Segment(0, len(MIDDLE))]
    assert logged(LOG) == MIDDLE


def test_a_death_in_the_middle_of_a_salvage_loses_nothing(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.open().spool.write(MIDDLE)
    worker.die()
    copy = tmp_path.parent / "copy"
    shutil.copytree(tmp_path, copy)
    Salvager(tmp_path).salvage(LOG)
    # The next process finds everything on the disk, and in the log too.
    Salvager(copy).salvage(LOG)
    assert (logged(LOG), left(copy)) == (MIDDLE, [])
    shutil.rmtree(copy)
