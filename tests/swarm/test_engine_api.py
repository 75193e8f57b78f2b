"""What the worker asks of an engine, of a server on a real socket that plays one newer than any tried."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from tests.support.waiting import wait_until
from tests.swarm.conftest import followed
from worker.engine.client import Engine
from worker.engine.errors import Refusal, Unreachable

EXEC = {"ID": "e1", "Running": False, "ExitCode": 3, "Pid": 7}
ANSWERS: dict[str, tuple[int, Any]] = {
    "/info": (200, {"ID": "AB:CD", "Name": "host", "Swarm": {"NodeID": "n1"}}),
    "/containers/c1/exec": (201, {"Id": "e1"}),
    "/exec/e1/json": (200, EXEC),
}
# As engines write them, and one with another code.
EVENTS = [
    {
        "Action": "exec_die",
        "Actor": {"ID": "c1", "Attributes": {"execID": id, "exitCode": code}},
        "timeNano": 1_800_000_000_123_456_789,
    }
    for id, code in (("e1", "3"), ("e2", "127"))
]


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    least, newest = "1.44", "1.52"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        # Clear while events are followed by silence; set, they are followed by the end of the connection.
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Refuses a version of the API below the least one, in Docker's words."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        versioned = re.fullmatch(r"/v(\d+\.\d+)(/.*)", self.path)
        asked, path = versioned.groups() if versioned else (self.server.newest, self.path)
        if number(asked) < number(self.server.least):
            said = f"client version {asked} is too old. Minimum supported API version is 1.44"
            self.answer(400, {"message": said})
        elif path == "/version":
            newest, least = self.server.newest, self.server.least
            self.answer(200, {"ApiVersion": newest, "MinAPIVersion": least})
        elif path.startswith("/events?"):
            self.events()
        elif path == "/exec/e1/start":
            self.stream(b"\x01\0\0\0\0\0\0\x03hi\n")
        else:
            self.answer(*ANSWERS[path])

    do_POST = do_GET  # noqa: N815 - http.server's names

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, data: bytes) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def events(self) -> None:
        """Some events; then silence, or the end of the connection."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for end in EVENTS:
            line = json.dumps(end).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.server.over.wait()
        self.close_connection = True

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a failure shows in the test."""


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@contextmanager
def serving(path: Path) -> Iterator[Server]:
    with Server(path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()


def life(engine: Engine) -> tuple[Any, ...]:
    exec_id = engine.create("c1", ["true"], [], "", False)
    return list(engine.start(exec_id)), engine.inspect(exec_id)


def test_an_engine_that_refuses_old_versions_of_the_api_is_served(tmp_path: Path) -> None:
    with serving(tmp_path / "engine.sock"):
        engine = Engine(f"unix://{tmp_path}/engine.sock", pool=2)
        assert engine.connect() == ("n1", "host")
        assert life(engine) == ([(1, b"hi\n")], EXEC)


def test_events_end_when_the_engine_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.client._TIMEOUT_SECONDS", 1)
    with serving(tmp_path / "engine.sock"):
        engine = Engine(f"unix://{tmp_path}/engine.sock", pool=2)
        engine.connect()
        told = [(id, code, EVENTS[0]["timeNano"]) for id, code in (("e1", 3), ("e2", 127))]
        assert list(engine.follow_ends(0)) == told


def test_events_that_break_off_say_so(tmp_path: Path) -> None:
    with serving(tmp_path / "engine.sock") as server:
        engine = Engine(f"unix://{tmp_path}/engine.sock", pool=2)
        engine.connect()
        ends = engine.follow_ends(0)
        assert next(ends)[0] == "e1"
        server.over.set()
        with pytest.raises(Unreachable):
            list(ends)


def test_an_engine_that_is_replaced_by_a_newer_one_is_served_on(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/engine.sock", pool=3)
    with serving(tmp_path / "engine.sock") as server:
        server.least, server.newest = "1.24", "1.41"
        with followed(engine, tmp_path) as exit_codes:
            wait_until(lambda: exit_codes.find("e2") == 127, 10, lambda: "no event")
            assert engine.create("c1", ["true"], [], "", False) == "e1"
            server.least, server.newest = "1.44", "1.52"
            with pytest.raises(Refusal, match="too old"):
                engine.create("c1", ["true"], [], "", False)
            # As an engine's end does, this ends its events.
            server.over.set()
            wait_until(lambda: served(engine), 10, lambda: "still refused")


def served(engine: Engine) -> bool:
    try:
        return engine.create("c1", ["true"], [], "", False) == "e1"
    except Refusal:
        return False
