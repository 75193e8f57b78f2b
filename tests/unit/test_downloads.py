"""Logs as their readers get them: from the result, from segments, or as one object."""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.errors import ContainerNotFound, LogNotReady
from chalicelib.domain.segments import Segment, log_name
from chalicelib.domain.states import Status
from chalicelib.services import downloads
from chalicelib.services.downloads import DIRECT_BYTES, Log
from tests.support.builders import build_result
from tests.support.clock import Clock
from tests.unit.callers import ADMIN
from tests.unit.executions import only, start

EXPIRES = 2_000_000_000
# What S3 gives for a long segment matters to nobody here.
LONG = DIRECT_BYTES + 1


class Target:
    """The container c1 of an execution, and what its worker stores."""

    def __init__(self, job_id: str) -> None:
        self.ids = (job_id, start(job_id, ("c1", "n1")), "c1")
        self.log = log_name(*self.ids)

    def write(self, status: Status, **fields: Any) -> None:
        """Stores the result."""
        build_result(*self.ids, Status=status, ID="e1", **fields).save()

    def add(self, first: int, content: bytes) -> None:
        """Stores a short segment."""
        store.segments.add(self.log, Segment(first, len(content), content), EXPIRES)

    def add_long(self, first: int, size: int) -> None:
        """Stores a segment whose bytes are in S3."""
        store.segments.add(self.log, Segment(first, size), EXPIRES)

    def catch_up(self) -> None:
        """Does what the wishes say."""
        ((_, wishes),) = store.wishes.read_wishes([self.ids[:2]])
        store.segments.set_caught_up(self.log, wishes.WatchedSince, EXPIRES)

    def assemble(self, size: int, content: bytes | None = None) -> None:
        """Puts the log together; its bytes matter only if the API reads them."""
        if content is not None:
            self.put(logs.whole_key(self.log, size), content)
        store.segments.set_assembled(self.log, size, EXPIRES)

    def put(self, key: str, content: bytes) -> None:
        client("s3").put_object(Bucket=settings.log_bucket, Key=key, Body=content)

    @property
    def wished(self) -> list[str]:
        """The containers whose logs somebody wants as one object."""
        return [
            container
            for _, wishes in store.wishes.read_wishes([self.ids[:2]])
            for container, _ in wishes.Assemble or []
        ]

    def read(self, fits: Callable[[bytes], bool] = lambda content: True) -> Log:
        return downloads.read_log(ADMIN, *self.ids, fits)

    def is_link_to(self, log: Log, size: int) -> bool:
        """Whether it is a link to the log as it was put together, with that size."""
        return log.content is None and logs.whole_key(self.log, size) in log.link


@pytest.fixture
def target(job_id: str) -> Target:
    return Target(job_id)


@pytest.fixture
def at_sleep(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something when somebody has slept so many times from now on: `at_sleep(times, action)`."""

    def do(times: int, action: Callable[[], object]) -> None:
        sleep, number = clock.sleep, len(clock.sleeps) + times

        def slept(seconds: float) -> None:
            sleep(seconds)
            if len(clock.sleeps) == number:
                action()

        monkeypatch.setattr(clock, "sleep", slept)

    return do


def is_text(content: bytes) -> bool:
    """What a reader can have that does not say what it accepts."""
    return content.isascii()


def test_a_log_is_named_after_container_and_start(job_id: str, clock: Clock) -> None:
    clock.now = 1_496_287_694.460088
    log = downloads.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c1")
    assert log.filename == "job-container-c1-2017-06-01-03:28:14.log"
    assert (log.link, log.content) == ("", b"")


def test_the_log_of_a_target_that_failed_before_it_ran_is_its_error(job_id: str) -> None:
    executor_id = start(job_id, ("c1", "nowhere"))
    log = downloads.read_log(ADMIN, job_id, executor_id, "c1")
    assert not log.link
    assert log.content == only(job_id, executor_id)["E"].encode()


def test_the_log_of_no_target_is_not_found(job_id: str) -> None:
    with pytest.raises(ContainerNotFound):
        downloads.read_log(ADMIN, job_id, start(job_id, ("c1", "n1")), "c2")


def test_a_target_that_nobody_took_up_has_no_log_and_no_wishes(
    target: Target, clock: Clock
) -> None:
    assert target.read().content == b""
    assert clock.sleeps == []
    assert list(store.wishes.read_wishes([target.ids[:2]])) == []


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING])
def test_the_log_of_a_running_command_is_what_its_segments_have(
    target: Target, status: Status
) -> None:
    target.write(status)
    assert target.read().content == b""
    target.add(0, b"so ")
    target.put(logs.segment_key(target.log, Segment(3, 3)), b"far")
    target.add_long(3, 3)
    assert target.read().content == b"so far"


def test_a_first_reader_waits_until_the_worker_has_caught_up(
    target: Target, clock: Clock, at_sleep: Callable[..., None]
) -> None:
    def work() -> None:
        target.add(0, b"new")
        target.catch_up()

    target.write(Status.RUNNING)
    at_sleep(2, work)
    assert target.read().content == b"new"
    assert len(clock.sleeps) == 2


def test_if_no_worker_hears_the_first_readers_wait_4_s_the_next_do_not(
    target: Target, clock: Clock
) -> None:
    target.write(Status.RUNNING)
    target.add(0, b"old")
    began = clock.now
    assert target.read().content == b"old"
    assert 4 <= clock.now - began < 4.5
    clock.now = began + 2
    target.read()
    assert 4 <= clock.now - began < 4.5
    clock.now = began + 29
    target.read()
    assert clock.now == began + 29


def test_after_a_pause_a_reader_is_a_first_one_again(target: Target, clock: Clock) -> None:
    target.write(Status.RUNNING)
    target.read()
    target.catch_up()
    clock.now += 60
    again = clock.now
    target.read()
    assert clock.now - again >= 4


def test_the_log_of_a_command_that_ends_while_its_reader_waits(
    target: Target, at_sleep: Callable[..., None], clock: Clock
) -> None:
    target.write(Status.RUNNING)
    at_sleep(1, lambda: target.write(Status.FINISHED, Output=b"all", OutputSize=3))
    assert target.read().content == b"all"
    assert len(clock.sleeps) == 1


@pytest.mark.parametrize(("more", "is_linked"), [(0, False), (1, True)])
def test_a_long_log_is_a_link(target: Target, more: int, is_linked: bool) -> None:
    size = DIRECT_BYTES + more
    target.write(Status.FINISHED, OutputSize=size)
    target.assemble(size, b"\0" * size)
    log = target.read()
    assert target.is_link_to(log, size) == is_linked
    assert log.content == (None if is_linked else b"\0" * size)


def test_a_long_running_log_is_a_link_once_it_was_put_together(
    target: Target, at_sleep: Callable[..., None]
) -> None:
    target.write(Status.RUNNING)
    target.add_long(0, LONG)
    # The first ten sleeps are the first reader's. Then a former wish is fulfilled, and then its own, to
    # which the log has grown meanwhile.
    at_sleep(13, lambda: target.assemble(LONG - 1))
    at_sleep(15, lambda: target.assemble(LONG + 2))
    assert target.is_link_to(target.read(), LONG + 2)
    assert target.wished == ["c1"]


def test_what_was_put_together_already_is_not_wished_for_again(target: Target) -> None:
    target.write(Status.RUNNING)
    target.add_long(0, LONG)
    target.assemble(LONG)
    assert target.is_link_to(target.read(), LONG)
    assert target.wished == []


def test_a_long_log_that_nobody_puts_together_is_not_ready_after_20_s(
    target: Target, clock: Clock
) -> None:
    target.write(Status.RUNNING)
    target.add(0, b"a")
    target.add_long(1, LONG)
    began = clock.now
    with pytest.raises(LogNotReady, match=str(LONG + 1)):
        target.read()
    assert 20 <= clock.now - began < 21


def test_a_reader_that_can_have_only_text_gets_other_bytes_as_one_object(
    target: Target, at_sleep: Callable[..., None]
) -> None:
    target.write(Status.RUNNING)
    target.add(0, b"\xff")
    assert target.read().content == b"\xff"
    at_sleep(3, lambda: target.assemble(1, b"\xff"))
    assert target.is_link_to(target.read(is_text), 1)


@pytest.mark.parametrize("output", [b"hi\n", b"\xff\0"])
def test_a_short_log_comes_from_the_result(target: Target, output: bytes) -> None:
    target.write(Status.FINISHED, OutputSize=len(output), Output=output)
    target.add(0, b"?")
    assert target.read().content == output
    log = target.read(is_text)
    assert log.content == output or target.is_link_to(log, len(output))
    assert (log.content is None) == (output != b"hi\n")


def test_a_log_that_is_gone_is_not_told_to_be_empty(target: Target) -> None:
    target.write(Status.FINISHED, OutputSize=7)
    assert target.is_link_to(target.read(), 7)


def test_a_log_whose_object_is_missing_comes_from_its_segments(target: Target) -> None:
    target.write(Status.FINISHED, OutputSize=7)
    target.add(0, b"segment")
    assert target.read().content == b"segment"


@pytest.mark.parametrize("size", [0, 4])
def test_the_log_of_a_command_that_lost_output_is_all_that_there_is(
    target: Target, size: int
) -> None:
    target.write(Status.FINISHED, OutputIncomplete=True, OutputSize=size, Output=b"know"[:size])
    target.assemble(4, b"know")
    assert target.read().content == b"know"
    target.add(0, b"known, and more")
    assert target.read().content == b"known, and more"
    target.assemble(15, b"known, and mOre")
    assert target.read().content == b"known, and mOre"


def test_a_command_that_lost_all_output_has_its_error_as_its_log(target: Target) -> None:
    target.write(Status.RUNNING_FAILED, OutputIncomplete=True, E="lost")
    assert target.read().content == b"lost"


def test_a_long_log_that_lost_output_and_is_in_pieces_is_not_ready(
    target: Target, clock: Clock
) -> None:
    target.write(Status.RUNNING_FAILED, OutputIncomplete=True, OutputSize=LONG)
    target.add(0, b"a")
    target.add_long(1, LONG)
    with pytest.raises(LogNotReady, match=str(LONG + 1)):
        target.read()
    assert clock.sleeps == []
    target.assemble(LONG + 1)
    assert target.is_link_to(target.read(), LONG + 1)


def test_a_log_that_was_put_together_before_its_command_is_over(
    target: Target,
) -> None:
    """The worker deletes the segments once it has put the log together."""
    target.write(Status.RUNNING)
    target.assemble(3, b"all")
    assert target.read().content == b"all"


def test_pieces_that_are_replaced_while_they_are_read_are_listed_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_late(*arguments: Any) -> bytes:
        monkeypatch.undo()
        target.write(Status.FINISHED, OutputSize=5)
        target.assemble(5, b"whole")
        return logs.read_segments(*arguments)

    target.write(Status.RUNNING)
    target.read()
    target.add_long(0, 5)
    monkeypatch.setattr(logs, "read_segments", read_late)
    assert target.read().content == b"whole"


def test_pieces_that_are_gone_for_good_are_not_called_an_empty_log(target: Target) -> None:
    target.write(Status.RUNNING)
    target.add_long(0, 5)
    with pytest.raises(LogNotReady):
        target.read()
