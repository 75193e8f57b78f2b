"""The engine's multiplexed stream, and what its refusals to start mean."""

import io
from collections.abc import Iterator
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.states import MEANINGS, Reason
from worker.engine import stream
from worker.engine.errors import AlreadyStarted, OutputCut, Refusal
from worker.engine.stream import Frame


def frame(payload: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def chunks(data: bytes, buffer: int = 16) -> Iterator[bytes]:
    return (chunk for _, chunk in frames(data, buffer))


def frames(data: bytes, buffer: int = 16) -> Iterator[Frame]:
    return stream.frames(io.BufferedReader(io.BytesIO(data), buffer))  # type: ignore[arg-type]


def test_frames_of_both_streams_come_as_they_came() -> None:
    data = frame(b"out") + frame(b"err", 2) + frame(b"end")
    assert list(frames(data)) == [(1, b"out"), (2, b"err"), (1, b"end")]


def test_no_frames_are_no_output() -> None:
    assert list(chunks(b"")) == []


def test_an_empty_frame_does_not_end_the_stream() -> None:
    assert list(chunks(frame(b"") + frame(b"x"))) == [b"x"]


def test_a_frame_larger_than_one_read_comes_in_pieces() -> None:
    payload = bytes(range(256)) * 3000
    assert len(payload) > stream._READ_BYTES
    pieces = list(chunks(frame(payload), buffer=1024**2))
    assert b"".join(pieces) == payload
    assert max(map(len, pieces)) <= stream._READ_BYTES


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 64))
def test_the_end_of_the_buffer_does_not_matter(payloads: list[bytes], buffer: int) -> None:
    data = b"".join(map(frame, payloads))
    assert b"".join(chunks(data, buffer)) == b"".join(payloads)


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_cut_in_a_header_is_noticed_after_all_complete_frames(kept: int) -> None:
    pieces = chunks(frame(b"whole") + frame(b"broken")[:kept])
    assert next(pieces) == b"whole"
    with pytest.raises(OutputCut, match="header"):
        next(pieces)


@pytest.mark.parametrize("kept", [8, 9, 13])
def test_a_cut_in_a_payload_keeps_the_bytes_that_came(kept: int) -> None:
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
        list(stream.frames(reader))


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
        list(stream.unless_started(EXEC_ID, frames(frame(said), buffer=16)))
    for other in ([(1, said), (1, b"x")], [(1, b"x"), (1, said)], [(2, said)], [(1, said[:-2])]):
        assert list(stream.unless_started(EXEC_ID, iter(other))) == other
    assert list(stream.unless_started("e2", iter([(1, said)]))) == [(1, said)]


def test_an_answer_that_is_cut_off_is_not_output_either() -> None:
    said = REFUSALS["28.5"].format(EXEC_ID).encode()
    with pytest.raises(AlreadyStarted):
        list(stream.unless_started(EXEC_ID, frames(frame(said) + frame(b"x")[:3])))


@pytest.mark.parametrize("reason", Reason)
def test_an_exec_ends_with_its_container(reason: Reason) -> None:
    raised = stream.start_error("e1", Refusal(reason, "why"))
    assert isinstance(raised, Refusal)
    is_away = MEANINGS[reason].container_is_away
    assert raised.reason == (Reason.CONTAINER_GONE if is_away else reason)
