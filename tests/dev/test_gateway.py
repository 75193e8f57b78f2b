"""What serves the API on this machine: HTTP as clients speak it, over connections of our own."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from dev.aws import Aws
from dev.gateway import LARGEST_BODY_BYTES, LARGEST_HEADERS_BYTES
from tests.support.local_api import api_process

SECONDS = 20


class Client:
    """A client that keeps its connection."""

    def __init__(self, url: str, token: str) -> None:
        self.address = urlsplit(url)
        self.token = token
        self.connection = HTTPConnection(self.address.netloc, timeout=SECONDS)

    def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[HTTPResponse, bytes]:
        """An answer and its body."""
        all_headers = {"Authorization": f"Bearer {self.token}", **headers}
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        self.connection.request(method, path, body, all_headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def send(self, data: bytes) -> socket.socket:
        """A new connection on which that was sent."""
        connection = socket.create_connection((self.address.hostname, self.address.port), SECONDS)
        connection.sendall(data)
        return connection

    def head(self, line: str, *headers: str) -> bytes:
        """The first lines of a request, with a token."""
        lines = [f"{line} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture
def client(api_url: str, token: str) -> Iterator[Client]:
    client = Client(api_url, token)
    with closing(client.connection):
        yield client


def job() -> bytes:
    return json.dumps({"AppName": uuid4().hex, "Name": "a", "Cmd": "ps"}).encode()


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def test_head_answers_with_headers_and_keeps_the_connection(
    client: Client,
) -> None:
    path = f"/api/jobs?AppName={uuid4().hex}"
    head, nothing = client.call("HEAD", path)
    connection = client.connection.sock
    get, body = client.call("GET", path)
    assert (head.status, nothing, get.status, body) == (200, b"", 200, b"[]")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert connection is client.connection.sock


def test_nothing_follows_the_headers_of_head(client: Client) -> None:
    with client.send(client.head("HEAD /api/jobs/nobody", "Connection: close")) as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 404")
    assert received.endswith(b"\r\n\r\n")


def test_a_chunked_body(client: Client) -> None:
    whole = job()
    answer, body = client.call("POST", "/api/jobs", iter([whole[:20], whole[20:]]))
    assert (answer.status, json.loads(body)["Cmd"]) == (200, "ps")


@pytest.mark.parametrize(
    "header",
    ["Content-Length: abc", "Content-Length: -1", "Transfer-Encoding: chunked\r\n\r\nxyz"],
)
def test_a_length_that_is_none_is_refused(client: Client, header: str) -> None:
    with client.send(client.head("POST /api/jobs", header)) as connection:
        assert answer_on(connection)[0] == 400


def test_a_client_may_ask_before_it_sends_the_body(client: Client) -> None:
    body = job()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    request = client.head("POST /api/jobs", *headers, "Expect: 100-continue")
    with client.send(request) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert answer_on(connection)[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/nothing?x=1", "/api/jobs/x/inspect", "//", "/%"]
)
def test_a_path_that_is_no_route(client: Client, path: str) -> None:
    answer, body = client.call("GET", path)
    expected = {"id": "route_not_found", "message": path.partition("?")[0]}
    assert (answer.status, json.loads(body)) == (404, expected)


def test_a_method_that_the_route_does_not_have(client: Client) -> None:
    answer, body = client.call("PATCH", "/api/jobs")
    assert (answer.status, json.loads(body)["id"]) == (405, "invalid_request")
    assert set(answer.headers["Allow"].split(", ")) >= {"GET", "POST", "OPTIONS"}


def test_a_path_may_come_with_its_host(client: Client) -> None:
    """As to a proxy."""
    assert client.call("GET", f"{client.address.geturl()}/api/jobs")[0].status == 200


def test_a_body_that_lambda_would_not_take(client: Client) -> None:
    answer, body = client.call("POST", "/api/jobs", b" " * (LARGEST_BODY_BYTES + 1))
    assert (answer.status, json.loads(body)["id"]) == (413, "invalid_request")


def test_headers_that_the_gateway_would_not_take(client: Client) -> None:
    answer, body = client.call("GET", "/api/jobs", **{"X-Long": "x" * LARGEST_HEADERS_BYTES})
    assert (answer.status, json.loads(body)["id"]) == (431, "invalid_request")


def test_200_connections_at_once_are_served(client: Client) -> None:
    request = client.head("GET /api/jobs/nobody")
    connections = [client.send(b"") for _ in range(200)]
    try:
        for connection in connections:
            connection.sendall(request)
        assert [answer_on(connection)[0] for connection in connections] == [404] * 200
    finally:
        for connection in connections:
            connection.close()


def test_slow_clients_keep_nobody_waiting(client: Client) -> None:
    """Neither those that do not end their request, nor those that do not read their answer."""
    half = client.head("POST /api/jobs", "Content-Length: 1000") + b"{"
    started = [half[: -20 - number] for number in range(50)] + [half] * 50
    slow = [client.send(data) for data in started]
    try:
        begin = time.monotonic()
        assert client.call("GET", "/api/jobs/nobody")[0].status == 404
        assert time.monotonic() - begin < SECONDS / 2
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_requests_under_way_are_answered(
    aws: Aws, token: str, tmp_path: Path, number: signal.Signals
) -> None:
    with api_process(aws.environment, tmp_path / "api.log", token) as (api, url):
        client = Client(url, token)
        with ThreadPoolExecutor(20) as pool:
            request = client.head("GET /api/jobs", "Connection: close")
            connections = [client.send(request) for _ in range(20)]
            answers = [pool.submit(answer_on, connection) for connection in connections]
            # They are taken in the order in which they come.
            answers[0].result()
            api.process.send_signal(number)
            statuses = {answer.result()[0] for answer in answers}
        for connection in connections:
            connection.close()
        assert statuses == {200}
        assert api.process.wait(SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            client.send(b"")
