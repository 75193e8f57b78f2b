"""When output is uploaded: seldom while nobody looks, at once if somebody does; and what that costs."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import MIN_PART_BYTES
from simulate.months import printing_hour
from simulate.usage import WRITE_UNITS
from tests.support.clock import Clock
from tests.support.costs import Costs, count_costs
from tests.support.logged import logged, stored_objects
from tests.support.waiting import wait_until
from worker.health import Pulse
from worker.output import upload as module
from worker.output.growth import GrowingLog
from worker.output.outputs import Outputs
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader

pytestmark = pytest.mark.usefixtures("aws")

IDS = ("j", "1.000000")
LOG = "j/1.000000/c"
MIB = 1024**2
HOUR_SECONDS = 3600


class AtOnce:
    """A pool of threads whose work is done at once, in the caller's thread."""

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        work(*arguments)


class Never:
    """A pool whose threads are all busy."""

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Does nothing yet."""


@pytest.fixture
def uploader(clock: Clock) -> Uploader:
    uploader = Uploader(Pulse())
    uploader._pieces = uploader._large = AtOnce()  # type: ignore[assignment]
    return uploader


@pytest.fixture
def outputs(uploader: Uploader, tmp_path: Path) -> Outputs:
    return Outputs(SpoolDirectory(tmp_path, 10**9, 10**9), uploader, Salvager(tmp_path))


@pytest.fixture
def log(outputs: Outputs) -> Iterator[GrowingLog]:
    with outputs.open("e", LOG, 2_000_000_000, tail=4, log_bytes=None) as log:
        yield log


def pass_time(uploader: Uploader, clock: Clock, seconds: float) -> None:
    """Lets time pass. Whatever is due is done in time."""
    end = clock.now + seconds
    uploader.turn()
    while uploader._looks and uploader._looks[0][0] <= end:
        clock.now = max(clock.now, uploader._looks[0][0])
        uploader.turn()
    clock.now = end


def print_for(
    log: GrowingLog, uploader: Uploader, clock: Clock, seconds: int, chunk: bytes, every: int
) -> None:
    for _ in range(seconds // every):
        log.spool.write(chunk)
        pass_time(uploader, clock, every)


def requests(costs: Costs) -> int:
    return sum(costs.requests.values())


@pytest.mark.parametrize(("size", "every"), [(20, 1), (100, 7), (3000, 5), (90, 61), (300_000, 1)])
def test_requests_of_an_hour_that_nobody_watches(
    log: GrowingLog,
    uploader: Uploader,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    every: int,
) -> None:
    """At most 80, and two for each segment of 5 MiB: whether it prints little or much."""
    seconds = HOUR_SECONDS if size < 10_000 else 300
    with count_costs(monkeypatch) as costs:
        print_for(log, uploader, clock, seconds, b"x" * size, every)
    written = size * (seconds // every)
    # The first minutes have more of the uploads.
    pieces = 80 if seconds == HOUR_SECONDS else 20
    assert requests(costs) <= 2 * written / MIN_PART_BYTES + pieces
    assert log.spool.waiting <= 121 * size


@pytest.mark.parametrize(("chunk", "count"), [(MIB, 40), (MIB // 4, 300), (5 * MIB, 12)])
@pytest.mark.parametrize("watched", [False, True])
def test_bytes_of_a_log_to_its_end(
    log: GrowingLog,
    outputs: Outputs,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    count: int,
    watched: bool,
) -> None:
    """Uploaded at most twice, copied inside S3 at most once."""
    sent = count_bytes(monkeypatch)
    uploader = outputs.uploader
    with count_costs(monkeypatch) as costs:
        for number in range(count):
            if watched:
                uploader.watch(*IDS, since=1.0, seconds=30)
            log.spool.write(bytes([number % 251]) * chunk)
            pass_time(uploader, clock, 1)
        uploader.leave(log)
        log.finish()
    size = chunk * count
    assert sent["PutObject"] + sent["UploadPart"] <= 2 * size
    assert sent["UploadPartCopy"] <= size
    assert logged(LOG) == b"".join(bytes([number % 251]) * chunk for number in range(count))
    if not watched:
        # A handful puts the log together.
        copies = costs.requests.pop("UploadPartCopy")
        assert copies <= size / MIN_PART_BYTES
        assert requests(costs) <= 2 * size / MIN_PART_BYTES + 80 * (count / HOUR_SECONDS) + 15


def count_bytes(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the bytes that go to S3, or are copied there, by kind of request."""
    sent = dict.fromkeys(["PutObject", "UploadPart", "UploadPartCopy"], 0)
    s3 = logs._s3()

    def count(call: str, kind: str, size: Callable[..., int]) -> None:
        real = getattr(s3, call)

        def counting(**parameters: Any) -> Any:
            sent[kind] += size(parameters)
            return real(**parameters)

        patch.setattr(s3, call, counting)

    def copied(parameters: Any) -> int:
        first, last = parameters["CopySourceRange"].removeprefix("bytes=").split("-")
        return int(last) - int(first) + 1

    count("put_object", "PutObject", lambda parameters: len(parameters["Body"]))
    count("upload_part", "UploadPart", lambda parameters: len(parameters["Body"]))
    count("upload_part_copy", "UploadPartCopy", copied)
    return sent


def test_the_first_upload_comes_soon_and_the_others_less_and_less_often(
    log: GrowingLog, uploader: Uploader, clock: Clock
) -> None:
    began, uploads = clock.now, []
    upload = log.upload_pieces

    def watched(hurry: bool) -> int:
        uploads.append(clock.now - began)
        return upload(hurry)

    log.upload_pieces = watched  # type: ignore[method-assign]
    print_for(log, uploader, clock, 600, b"x", 1)
    pauses = [later - before for before, later in zip([0.0, *uploads], uploads, strict=False)]
    assert pauses[:4] == [3, 3, 4.5, 6.75]
    assert pauses[-1] == 60


def test_who_watches_is_at_most_two_seconds_behind(
    log: GrowingLog, uploader: Uploader, clock: Clock
) -> None:
    print_for(log, uploader, clock, 600, b"x", 1)
    assert log.spool.waiting > 1
    uploader.watch(*IDS, since=clock.now, seconds=30)
    for second in range(30):
        log.spool.write(b"y" * 10_000)
        pass_time(uploader, clock, 1)
        assert log.spool.waiting <= 10_000, second
    print_for(log, uploader, clock, 60, b"x", 1)
    assert log.spool.waiting > 2


def test_a_closed_file_keeps_no_watcher_waiting(
    log: GrowingLog, uploader: Uploader, clock: Clock
) -> None:
    """A large segment may take minutes."""
    uploader._large = Never()  # type: ignore[assignment]
    uploader.watch(*IDS, since=1.0, seconds=30)
    log.spool.write(b"x" * MIN_PART_BYTES)
    log.spool.write(b"next")
    pass_time(uploader, clock, 0)
    assert logged(LOG) == b"x" * MIN_PART_BYTES + b"next"
    uploader._jobs[log].large_runs = False


def test_uploads_go_on_after_a_segment_has_put_them_off(
    log: GrowingLog, uploader: Uploader, clock: Clock
) -> None:
    for chunk in (b"y" * 10_000, b"y" * 10_000, b"x" * MIN_PART_BYTES):
        log.spool.write(chunk)
        pass_time(uploader, clock, 10)
    assert log.spool.closed_file is None
    log.spool.write(b"then little")
    pass_time(uploader, clock, 200)
    assert log.spool.waiting == 0


def test_each_new_watch_is_answered_once_when_the_log_is_up_to_date(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.spool.write(b"so far")
    uploader.watch(*IDS, since=5.0, seconds=30)
    uploader.watch("j", "2.000000", since=7.0, seconds=30)
    assert store.segments.get_state(LOG).caught_up == 0
    pass_time(uploader, clock, 0)
    assert store.segments.get_state(LOG).caught_up == 5
    assert logged(LOG) == b"so far"
    with count_costs(monkeypatch) as costs:
        for _ in range(10):
            uploader.watch(*IDS, since=5.0, seconds=30)
            pass_time(uploader, clock, 2)
    assert costs.requests == {}
    uploader.watch(*IDS, since=9.0, seconds=30)
    pass_time(uploader, clock, 0)
    assert store.segments.get_state(LOG).caught_up == 9


def test_a_watch_is_not_answered_before_the_log_is_up_to_date(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise ConnectionError

    log.spool.write(b"so far")
    with monkeypatch.context() as patch:
        patch.setattr(store.segments, "add", fail)
        uploader.watch(*IDS, since=5.0, seconds=30)
        pass_time(uploader, clock, 3)
    assert store.segments.get_state(LOG).caught_up == 0
    pass_time(uploader, clock, 1)
    assert store.segments.get_state(LOG).caught_up == 5
    assert logged(LOG) == b"so far"


def test_what_is_there_is_put_together_if_somebody_wants_it(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.spool.write(b"so far")
    uploader.assemble("j/1.000000/other", 1.0)
    pass_time(uploader, clock, 0)
    assert store.segments.get_state(LOG).assembled == 0

    def fail(*arguments: Any) -> Any:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(logs, "assemble", fail)
        uploader.assemble(LOG, 1.0)
        pass_time(uploader, clock, 1)
    pass_time(uploader, clock, 5)
    assert store.segments.get_state(LOG).assembled == 6
    with count_costs(monkeypatch) as costs:
        uploader.assemble(LOG, 1.0)
        pass_time(uploader, clock, 5)
    assert "PutObject" not in costs.requests


def test_a_command_that_waits_for_room_is_served_at_once(
    uploader: Uploader, tmp_path: Path, clock: Clock
) -> None:
    outputs = Outputs(SpoolDirectory(tmp_path, 100, 10**9), uploader, Salvager(tmp_path))
    with outputs.open("e", LOG, 2_000_000_000, tail=4, log_bytes=None) as log:
        uploader._pieces = module.ThreadPoolExecutor(1)
        log.spool.write(b"x" * 100)
        writer = threading.Thread(target=log.spool.write, args=(b"y",))
        writer.start()
        wait_until(lambda: log.spool.is_full)
        wait_until(lambda: uploader.turn() or not log.spool.is_full)
        writer.join(5)
        assert not writer.is_alive()


def test_replaced_objects_are_deleted_later_and_together(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may be about to read them, or has a link to one."""
    uploader.watch(*IDS, since=1.0, seconds=60)
    print_for(log, uploader, clock, 60, b"x" * MIB, 1)
    before = stored_objects("segments/")
    assert len(before) > 30
    with count_costs(monkeypatch) as costs:
        pass_time(uploader, clock, logs.LINK_SECONDS - 60)
        assert stored_objects("segments/") == before
        pass_time(uploader, clock, 3 * logs.LINK_SECONDS)
        uploader.turn()
    assert costs.requests["DeleteObjects"] == 1
    assert len(stored_objects("segments/")) < 20
    assert logged(LOG) == b"x" * 60 * MIB


def test_nothing_is_uploaded_of_a_log_that_was_left(
    log: GrowingLog, uploader: Uploader, clock: Clock
) -> None:
    log.spool.write(b"x" * MIN_PART_BYTES)
    uploader.leave(log)
    pass_time(uploader, clock, 100)
    assert (logged(LOG), log.spool.waiting) == (b"", MIN_PART_BYTES)


def test_a_log_is_left_when_its_upload_is_over(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploading, may_end = threading.Event(), threading.Event()

    def upload(hurry: bool) -> int:
        uploading.set()
        assert may_end.wait(10)
        return 0

    monkeypatch.setattr(log, "upload_pieces", upload)
    uploader._pieces = module.ThreadPoolExecutor(1)
    uploader.watch(*IDS, since=1.0, seconds=30)
    uploader.turn()
    assert uploading.wait(10)
    leaving = threading.Thread(target=uploader.leave, args=(log,))
    leaving.start()
    leaving.join(0.05)
    assert leaving.is_alive()
    may_end.set()
    leaving.join(10)
    assert not leaving.is_alive()


def test_the_thread_uploads_what_is_due(outputs: Outputs) -> None:
    uploader = Uploader(Pulse())
    outputs = Outputs(outputs.spools, uploader, outputs.salvager)
    with outputs.open("t", LOG, 2_000_000_000, tail=4, log_bytes=None) as log:
        uploader.start()
        log.spool.write(b"so far")
        uploader.watch(*IDS, since=1.0, seconds=30)
        assert wait_until(lambda: logged(LOG)) == b"so far"


def test_units_of_an_hour_that_nobody_watches(
    log: GrowingLog, uploader: Uploader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with count_costs(monkeypatch) as costs:
        print_for(log, uploader, clock, HOUR_SECONDS, b"x" * 20, 1)
    simulated = printing_hour()
    assert costs.requests.keys() <= simulated.keys()
    assert simulated[WRITE_UNITS] * 0.7 <= costs.write_units <= simulated[WRITE_UNITS]


def test_a_thread_that_waits_for_nothing_sees_a_new_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real time: it must not sleep on until the end of a wait that began before."""
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(module, "_TURN_SECONDS", 3600.0)
    uploader = Uploader(Pulse())
    uploader.start()
    waits = threading.Event()
    wait = uploader._changed.wait
    monkeypatch.setattr(uploader._changed, "wait", lambda *args: (waits.set(), wait(*args)))
    with uploader._changed:
        uploader._changed.notify_all()
    assert waits.wait(30)
    outputs = Outputs(SpoolDirectory(tmp_path, 10**9, 10**9), uploader, Salvager(tmp_path))
    with outputs.open("e", LOG, 2_000_000_000, tail=4, log_bytes=None) as log:
        log.spool.write(b"some")
        wait_until(lambda: log.spool.waiting == 0, 30, lambda: "not uploaded")
