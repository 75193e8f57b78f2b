"""The connection that brings the output of a started exec, and the frames in it."""

import io
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from chalicelib.domain.states import MEANINGS, Reason
from worker.engine.errors import AlreadyStarted, OutputCut, Refusal

# The number of a stream (1: stdout, 2: stderr), and some of what was written to it.
Frame = tuple[int, bytes]
_STDOUT = 1
_FRAME_HEADER = struct.Struct(">BxxxL")
_READ_BYTES = 256 * 1024
# A payload of at most this size is read as a whole: the engine has written it as a whole.
_SMALL_BYTES = 1024
# A command may be silent for hours, so the read of its output has no timeout. If the engine is on another
# machine, probes find a dead connection: after 20 s of silence, six of them, 10 s apart.
_PROBES = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}


def start_error(exec_id: str, refusal: Refusal) -> Exception:
    """The error to raise if the engine refused to start the exec."""
    if refusal.reason == Reason.CONTAINER_NOT_RUNNING and exec_id in str(refusal):
        return AlreadyStarted(str(refusal))
    if MEANINGS[refusal.reason].container_is_away:
        return Refusal(Reason.CONTAINER_GONE, str(refusal))
    return refusal


def output(exec_id: str, connection: Any) -> Iterator[Frame]:
    """The output of the exec, as it comes. Raises AlreadyStarted, OutputCut."""
    return unless_started(exec_id, frames(_buffered(connection)))


def unless_started(exec_id: str, output: Iterator[Frame]) -> Iterator[Frame]:
    """Yields the output. Raises AlreadyStarted if it only says that the exec was started before.

    Engines answer a second start like a first one, and send their refusal instead of the output. Each
    engine has other words for it. On all of them it is one piece on stdout, with nothing after it. It has
    the exec's ID, and ends as lines of HTTP end. No command prints this by accident: a command does not
    know its exec's ID.
    """
    first = next(output, None)
    if first and _may_be_refusal(exec_id, first):
        after = None
        with suppress(OutputCut):
            after = next(output, None)
        if after is None:
            raise AlreadyStarted(first[1].decode(errors="replace").strip())
        yield first
        yield after
    elif first:
        yield first
    yield from output


def _may_be_refusal(exec_id: str, frame: Frame) -> bool:
    number, chunk = frame
    return number == _STDOUT and exec_id.encode() in chunk and chunk.endswith(b"\r\n")


def frames(stream: io.BufferedReader) -> Iterator[Frame]:
    """Yields the frames of the engine's multiplexed stream (API reference, "Stream format").

    Raises OutputCut if the stream ends in the middle of one.
    """
    while header := _read(stream, _FRAME_HEADER.size):
        if len(header) < _FRAME_HEADER.size:
            raise OutputCut("the engine closed the stream within a frame's header")
        number, left = _FRAME_HEADER.unpack(header)
        while left:
            chunk = _read(stream, min(left, _READ_BYTES))
            if not chunk:
                raise OutputCut("the engine closed the stream within a frame")
            left -= len(chunk)
            yield number, chunk


def _read(stream: io.BufferedReader, size: int) -> bytes:
    """The next bytes: `size` of them; fewer if the stream ends or `size` is large. Raises OutputCut."""
    try:
        return stream.read(size) if size <= _SMALL_BYTES else stream.read1(size)
    except OSError as error:
        raise OutputCut(str(error)) from error


def _buffered(connection: Any) -> io.BufferedReader:
    """The reader that took the answer's header off the socket.

    The first output may have come in the same packet. Then it waits in this reader, and a client that
    reads the bare socket, as docker-py does, never sees it.
    """
    reader: io.BufferedReader = connection._response.raw._fp.fp
    return reader


def remove_timeout(connection: Any) -> None:
    """Removes the calls' timeout from the connection: a command may be silent for hours."""
    bare = _socket(connection)
    bare.settimeout(None)
    if bare.family != socket.AF_UNIX:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            bare.setsockopt(socket.IPPROTO_TCP, option, value)


def hang_up(connection: Any) -> None:
    """Ends the connection now; closing the stream would leave that to the garbage collector.

    A command that still prints would wait for its reader until then.
    """
    with suppress(OSError):  # the engine was first
        _socket(connection).shutdown(socket.SHUT_RDWR)
    connection.close()


def _socket(connection: Any) -> socket.socket:
    """Over TLS docker-py hands out the socket itself, otherwise a file object around it."""
    bare: socket.socket = getattr(connection, "_sock", connection)
    return bare
