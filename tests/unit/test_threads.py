"""Our threads keep to names that Python's Thread does not use itself: newer Pythons use more of them."""

import threading

import pytest

from worker.consumer import Consumer
from worker.engine.events import ExitCodes
from worker.heartbeat import Heartbeat
from worker.lease import Lease


@pytest.mark.parametrize("kind", [Consumer, ExitCodes, Heartbeat, Lease])
def test_no_method_replaces_what_a_thread_has(kind: type[threading.Thread]) -> None:
    own = {name for name in vars(kind) if not name.startswith("__")} - {"run"}
    assert own & {*dir(threading.Thread), *vars(threading.Thread())} == set()
