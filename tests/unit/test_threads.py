"""Our threads keep to names that Python's Thread does not use itself: newer Pythons use more of them."""

import threading

import pytest

import worker.__main__

# The worker's main module imports all of its loops.
LOOPS = [
    kind
    for kind in threading.Thread.__subclasses__()
    if kind.__module__.startswith(worker.__name__)
]


def test_the_loops_are_found() -> None:
    assert {worker.__main__.Lease, worker.__main__.Heartbeat} < set(LOOPS)


@pytest.mark.parametrize("kind", LOOPS)
def test_no_method_replaces_what_a_thread_has(kind: type[threading.Thread]) -> None:
    own = {name for name in vars(kind) if not name.startswith("__")} - {"run"}
    assert own & {*dir(threading.Thread), *vars(threading.Thread())} == set()
