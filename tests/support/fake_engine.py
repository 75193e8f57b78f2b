"""Plays many Docker Engines in one process: for many nodes on two cores.

    python -m tests.support.fake_engine FOLDER COUNT

Each listens on a socket `N.sock` in the folder and is the node `node_id(N)`. It knows every container. A
command is `print BYTES SECONDS`: it runs that long, prints that much and exits with 0.
"""

import json
import re
import secrets
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

_STDOUT = 1
_FRAME_BYTES = 32 * 1024
# The worker asks again after 30 s of silence.
_SILENT_SECONDS = 60
_PATH = re.compile(r"(?:/v[\d.]+)?(/[^?]*)")


def node_id(number: int) -> str:
    """The Swarm NodeID of an engine, as long as a real one."""
    return f"node{number:021}"


def container_id(number: int, container: int) -> str:
    """The long id of a container on that engine."""
    return f"{number:032x}{container:032x}"


class _Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(str(folder / f"{number}.sock"), _Handler)
        self.number = number
        self.execs: dict[str, dict[str, Any]] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Engine

    def do_GET(self) -> None:
        self._answer_one_of(
            (r"/version", lambda: {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
            (r"/info", self._info),
            (r"/containers/([^/]+)/json", self._inspect_container),
            (r"/exec/([^/]+)/json", lambda exec_id: self.server.execs[exec_id]),
            (r"/events", self._be_silent),
        )

    def do_POST(self) -> None:
        self._answer_one_of(
            (r"/containers/([^/]+)/exec", self._create), (r"/exec/([^/]+)/start", self._start)
        )

    def _answer_one_of(self, *routes: tuple[str, Callable[..., Any]]) -> None:
        found = _PATH.match(self.path)
        for pattern, answer in routes:
            if found and (match := re.fullmatch(pattern, found[1])):
                if (body := answer(*match.groups())) is not None:
                    self._send(200, body)
                return
        self._send(404, {"message": f"a fake engine has no {self.command} {self.path}"})

    def _info(self) -> dict[str, Any]:
        name = node_id(self.server.number)
        return {"ID": name, "Name": name, "DockerRootDir": "", "Swarm": {"NodeID": name}}

    def _inspect_container(self, container: str) -> dict[str, Any]:
        return {
            "Id": container,
            "State": {"Running": True},
            "Config": {"User": "", "Labels": {}},
            "HostConfig": {},
            "Mounts": [],
        }

    def _create(self, container: str) -> dict[str, str]:
        asked = self._read()
        command = asked["Cmd"]
        exec_id = secrets.token_hex(32)
        self.server.execs[exec_id] = {
            "ID": exec_id,
            "ContainerID": container,
            "Running": False,
            "ExitCode": None,
            "Pid": 0,
            "ProcessConfig": {
                "tty": False,
                "entrypoint": command[0],
                "arguments": command[1:],
                "privileged": False,
            },
            "OpenStdin": False,
            "OpenStdout": True,
            "OpenStderr": True,
            "CanRemove": False,
            "DetachKeys": "",
        }
        return {"Id": exec_id}

    def _start(self, exec_id: str) -> None:
        self._read()
        made = self.server.execs[exec_id]
        size, seconds = made["ProcessConfig"]["arguments"]
        self.wfile.write(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        made |= {"Running": True, "Pid": 4711}
        time.sleep(float(seconds))
        for begin in range(0, int(size), _FRAME_BYTES):
            output = b"x" * min(_FRAME_BYTES, int(size) - begin)
            self.wfile.write(struct.pack(">BxxxL", _STDOUT, len(output)) + output)
        made |= {"Running": False, "ExitCode": 0, "Pid": 0}
        self.close_connection = True

    def _be_silent(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        time.sleep(_SILENT_SECONDS)
        self.close_connection = True

    def _read(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """A line for each request would say nothing."""


def main(folder: str, count: str) -> None:
    """Serves until it is killed."""
    engines = [_Engine(Path(folder), number) for number in range(int(count))]
    for engine in engines[1:]:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
    engines[0].serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
