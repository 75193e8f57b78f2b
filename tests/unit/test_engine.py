"""The engine's multiplexed stream, and what its refusals mean."""

import io
from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import docker
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.states import MEANINGS, Reason
from worker.engine import client as engine
from worker.engine.client import (
    AlreadyStarted,
    Engine,
    Frame,
    OutputCut,
    Refusal,
    UnknownExec,
    Unreachable,
    _frames,
    _start_refused,
    _unless_started,
)
from worker.engine.paths import EnginePaths


def frame(payload: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def chunks(data: bytes, buffer: int = 16) -> Iterator[bytes]:
    return (chunk for _, chunk in frames(data, buffer))


def frames(data: bytes, buffer: int = 16) -> Iterator[Frame]:
    return _frames(io.BufferedReader(io.BytesIO(data), buffer))  # type: ignore[arg-type]


def test_frames_of_both_streams_come_as_they_came() -> None:
    data = frame(b"out") + frame(b"err", 2) + frame(b"end")
    assert list(frames(data)) == [(1, b"out"), (2, b"err"), (1, b"end")]


def test_no_frames_are_no_output() -> None:
    assert list(chunks(b"")) == []


def test_an_empty_frame_does_not_end_the_stream() -> None:
    assert list(chunks(frame(b"") + frame(b"x"))) == [b"x"]


def test_a_frame_larger_than_one_read_comes_in_pieces() -> None:
    payload = bytes(range(256)) * 3000
    assert len(payload) > engine._READ
    pieces = list(chunks(frame(payload), buffer=1024**2))
    assert b"".join(pieces) == payload
    assert max(map(len, pieces)) <= engine._READ


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 64))
def test_where_the_buffer_ends_does_not_matter(payloads: list[bytes], buffer: int) -> None:
    data = b"".join(map(frame, payloads))
    assert b"".join(chunks(data, buffer)) == b"".join(payloads)


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_cut_in_a_header_is_noticed_after_what_was_whole(kept: int) -> None:
    stream = chunks(frame(b"whole") + frame(b"broken")[:kept])
    assert next(stream) == b"whole"
    with pytest.raises(OutputCut, match="header"):
        next(stream)


@pytest.mark.parametrize("kept", [8, 9, 13])
def test_a_cut_in_a_payload_keeps_what_came_of_it(kept: int) -> None:
    got: list[bytes] = []
    with pytest.raises(OutputCut, match="within a frame"):
        _drain(chunks(frame(b"whole") + frame(b"broken")[:kept]), got)
    assert b"".join(got) == b"whole" + b"broken"[: kept - 8]


def _drain(stream: Iterator[bytes], into: list[bytes]) -> None:
    for chunk in stream:
        into.append(chunk)


def test_a_broken_connection_is_a_cut() -> None:
    reader = create_autospec(io.BufferedReader, instance=True)
    reader.read.side_effect = ConnectionResetError
    with pytest.raises(OutputCut):
        list(_frames(reader))


# What engines answer to a second start of an exec, while it runs and when it is over.
REFUSALS = {
    "20.10, 26.1": "Error: Exec command {} is already running\r\n",
    "20.10, 26.1, over": "Error: Exec command {} has already run\r\n",
    "28.5": "exec command {} is already running\r\n",
    "28.5, over": "exec command {} has already run\r\n",
    "some other": "{}: no\r\n",
}
EXEC_ID = "bc29212fcde8cc56083a36f57882476f64d6720283d144c4f7b39c4266585024"


@pytest.mark.parametrize("words", REFUSALS.values(), ids=REFUSALS)
def test_an_answer_in_place_of_output_means_already_started(words: str) -> None:
    said = words.format(EXEC_ID).encode()
    with pytest.raises(AlreadyStarted):
        list(_unless_started(EXEC_ID, frames(frame(said), buffer=16)))
    for other in ([(1, said), (1, b"x")], [(1, b"x"), (1, said)], [(2, said)], [(1, said[:-2])]):
        assert list(_unless_started(EXEC_ID, iter(other))) == other
    assert list(_unless_started("e2", iter([(1, said)]))) == [(1, said)]


def test_an_answer_that_is_cut_off_is_no_output_either() -> None:
    said = REFUSALS["28.5"].format(EXEC_ID).encode()
    with pytest.raises(AlreadyStarted):
        list(_unless_started(EXEC_ID, frames(frame(said) + frame(b"x")[:3])))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(docker.APIClient, instance=True)
    monkeypatch.setattr(docker, "APIClient", create_autospec(docker.APIClient, return_value=fake))
    return fake


@pytest.fixture
def connected(api: Any) -> Engine:
    api.info.return_value = {"ID": "AB:CD", "Name": "host", "Swarm": {"NodeID": "n1"}}
    made = Engine("unix:///none", pool=1)
    made.connect()
    return made


def refused(status: int, explanation: str = "no") -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("refused", response, explanation)


@pytest.mark.parametrize(
    ("swarm", "node_id"),
    [({"Swarm": {"NodeID": "n1"}}, "n1"), ({"Swarm": {"NodeID": ""}}, "AB:CD"), ({}, "AB:CD")],
)
def test_a_node_is_its_swarm_id_or_its_engine_id(
    api: Any, swarm: dict[str, Any], node_id: str
) -> None:
    api.info.return_value = {"ID": "AB:CD", "Name": "host", **swarm}
    assert Engine("unix:///none", pool=1).connect() == (node_id, "host")


@pytest.mark.parametrize(
    ("status", "explanation", "reason"),
    [
        (404, "No such container: c", Reason.CONTAINER_NOT_FOUND),
        (409, "Container c is not running", Reason.CONTAINER_NOT_RUNNING),
        (409, "Container c is paused, unpause it", Reason.CONTAINER_PAUSED),
        (500, "oops", Reason.ENGINE_ERROR),
    ],
)
def test_a_refused_create_has_a_reason_and_the_engines_words(
    connected: Engine, api: Any, status: int, explanation: str, reason: Reason
) -> None:
    api.exec_create.side_effect = refused(status, explanation)
    with pytest.raises(Refusal, match=explanation) as refusal:
        connected.create("c", ["true"], [], "", False)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("status", "explanation", "expected"),
    [
        (409, "Exec command e1 is already running", AlreadyStarted),
        (409, "e1 was started", AlreadyStarted),
        (409, "Container c is not running", Refusal),
        (404, "No such exec: e1", Refusal),
    ],
)
def test_a_refused_start_tells_started_from_gone(
    connected: Engine, api: Any, status: int, explanation: str, expected: type[Exception]
) -> None:
    api.exec_start.side_effect = refused(status, explanation)
    with pytest.raises(expected) as raised:
        next(iter(connected.start("e1")))
    assert getattr(raised.value, "reason", None) in (None, Reason.CONTAINER_GONE)


@pytest.mark.parametrize("reason", Reason)
def test_an_exec_ends_with_its_container(reason: Reason) -> None:
    raised = _start_refused("e1", Refusal(reason, "why"))
    assert isinstance(raised, Refusal)
    is_away = MEANINGS[reason].container_is_away
    assert raised.reason == (Reason.CONTAINER_GONE if is_away else reason)


def test_an_exec_that_the_engine_forgot_is_unknown(connected: Engine, api: Any) -> None:
    api.exec_inspect.side_effect = refused(404)
    with pytest.raises(UnknownExec):
        connected.inspect("e1")


@pytest.mark.parametrize(
    "error", [requests.ConnectionError(), ConnectionResetError(), TimeoutError()]
)
def test_an_engine_that_does_not_answer_is_unreachable(
    connected: Engine, api: Any, error: Exception
) -> None:
    api.exec_inspect.side_effect = error
    with pytest.raises(Unreachable):
        connected.inspect("e1")


def test_an_engine_never_reached_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="never reached"):
        Engine("unix:///none", pool=1).inspect("e1")


def test_a_process_is_found_in_its_container(connected: Engine, api: Any) -> None:
    api.top.return_value = {"Titles": ["UID", "PID"], "Processes": [["root", "7"], ["7", "71"]]}
    assert connected.is_alive("c1", 7)
    assert not connected.is_alive("c1", 1)


def test_a_container_that_is_not_there_cannot_be_looked_at(api: Any, connected: Engine) -> None:
    api.inspect_container.side_effect = refused(404, "No such container: c1")
    with pytest.raises(Refusal) as refusal:
        connected.container("c1")
    assert refusal.value.reason == Reason.CONTAINER_NOT_FOUND


def test_a_volume_that_is_not_there_is_none(api: Any, connected: Engine) -> None:
    api.inspect_volume.side_effect = refused(404, "no such volume")
    assert connected.volume("v1") is None


def test_the_node_is_known_by_its_socket_and_its_data(api: Any) -> None:
    api.info.return_value = {"ID": "AB:CD", "Name": "host", "DockerRootDir": "/srv/docker"}
    for url, address in (("unix:///srv/engine.sock", "/srv/engine.sock"), ("tcp://host:2376", "")):
        made = Engine(url, pool=1)
        made.connect()
        assert made.paths == EnginePaths(address, "/srv/docker")
