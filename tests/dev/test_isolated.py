"""A server that listens on every address is reached through one of them, and from nowhere else."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dev.addresses import answers, free_port
from dev.children import Child, start_child
from dev.waiting import wait_for

SERVER = [sys.executable, "-m", "http.server", "--bind", "0.0.0.0"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace: root")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def isolated(port: int, tmp_path: Path) -> Iterator[Child]:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 40_000)
    command = [sys.executable, "-m", "dev.isolated", f"127.0.0.1:{port}", *SERVER]
    options = ["--directory", str(tmp_path), str(port)]
    child = start_child("server", [*command, *options], {}, tmp_path / "log")
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/"), 20, "the server", child)
        yield child
    finally:
        child.stop()


def listeners(port: int) -> set[str]:
    """The addresses on which this machine listens, as the kernel writes them."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    places = [line[1].split(":") for line in lines if line[3] == "0A"]
    return {address for address, number in places if int(number, 16) == port}


def test_it_is_reached_through_one_address_alone(isolated: Child, port: int) -> None:
    got = requests.get(f"http://127.0.0.1:{port}/file", timeout=30).content
    assert got == bytes(range(256)) * 40_000
    assert listeners(port) == {"0100007F"}
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), 5):
        pass


def test_it_reaches_nobody(isolated: Child) -> None:
    namespace = [f"--net=/proc/{isolated.pid}/ns/net"]
    links = subprocess.run(["nsenter", *namespace, "ip", "-o", "link"], capture_output=True)
    assert [line.split(b": ")[1] for line in links.stdout.splitlines()] == [b"lo"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_us(isolated: Child, port: int, number: signal.Signals) -> None:
    isolated.process.send_signal(number)
    isolated.process.wait(20)
    deadline = time.monotonic() + 20
    while server_processes(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def server_processes(port: int) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"http.server .*{port}"], capture_output=True, text=True)
    return found.stdout.split()
