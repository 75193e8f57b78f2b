"""Virtual time, and the resources that processes wait for."""

import pytest

from simulate.loop import Bucket, Loop, Places, Process, Server


def test_a_server_serves_one_after_the_other() -> None:
    loop = Loop()
    server = Server(loop, "key", rate=10)
    done = []

    def ask(units: float) -> Process:
        yield server.serve(units)
        done.append((units, loop.now))

    loop.spawn(ask(5))
    loop.spawn(ask(10))
    loop.spawn(ask(1), after=3)
    loop.run()
    assert done == [(5, 0.5), (10, 1.5), (1, 3.1)]
    assert server.served == 16


def test_who_finds_no_place_waits_in_the_order_of_arrival() -> None:
    loop = Loop()
    places = Places(loop, "functions", 1)
    came = []

    def stay(name: str) -> Process:
        yield from places.enter()
        came.append((name, loop.now))
        entered = loop.now
        yield 2
        places.leave(entered)

    for name in "abc":
        loop.spawn(stay(name))
    loop.run()
    assert came == [("a", 0), ("b", 2), ("c", 4)]
    assert places.busy_seconds == 6
    assert places.taken == 0


def test_a_bucket_takes_its_burst_and_then_its_rate() -> None:
    loop = Loop()
    bucket = Bucket(loop, "gateway", rate=2, burst=3)
    taken = []

    def ask() -> Process:
        taken.append(bucket.take())
        yield 0

    for after in (0, 0, 0, 0, 0.5, 0.5):
        loop.spawn(ask(), after)
    loop.run()
    assert taken == [True, True, True, False, True, False]
    assert (bucket.taken, bucket.refused) == (4, 2)


def test_time_stops_at_the_given_moment() -> None:
    loop = Loop()
    ticks = []

    def tick() -> Process:
        while True:
            ticks.append(loop.now)
            yield 1

    loop.spawn(tick())
    loop.run(until=3.5)
    assert ticks == [0, 1, 2, 3]


def test_outside_of_a_process_nobody_is_current() -> None:
    with pytest.raises(RuntimeError):
        Loop().current()
