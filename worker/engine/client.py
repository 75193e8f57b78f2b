"""One Docker Engine: the only importer of docker. Engine errors become `Refusal`s or `Unreachable`."""

import base64
import io
import json
import socket
import struct
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import quote

import docker
import docker.utils
import requests
from urllib3.exceptions import ReadTimeoutError

from chalicelib.domain.states import MEANINGS, Reason
from worker.engine.paths import EnginePaths

# The engine answers these calls from memory; only a hanging one takes longer.
_TIMEOUT = 30
_FRAME_HEADER = struct.Struct(">BxxxL")
_READ = 256 * 1024
# What has no more bytes than this is read as a whole: the engine has written it as a whole.
_SMALL = 1024
_STDOUT = 1
# Of a file in a container, this much is read at the most, and so many links are followed to it.
_FILE, _LINKS = 1024**2, 5
# Of a file's mode, as Go has it: the types that matter here.
_FOLDER, _SOCKET = 1 << 31, 1 << 24
# The number of a stream (1: stdout, 2: stderr), and some of what was written to it.
Frame = tuple[int, bytes]
# A command may be silent for hours, so the read of its output has no time-out. Where the engine is on
# another machine, probes find out about a dead connection: after 20 s of silence, six of them 10 s apart.
_PROBES = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}


class Refusal(Exception):
    """The engine answered that it will not, or cannot."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownExec(Exception):
    """The engine does not know this exec: it, or its container, is gone from its memory."""


class AlreadyStarted(Exception):
    """The exec was started before; its output cannot be had a second time."""


class Unreachable(Exception):
    """The engine did not answer."""


class OutputCut(Exception):
    """The stream of the output broke off in the middle."""


class Engine:
    """The calls that an exec needs. Made without I/O; safe to use from several threads."""

    def __init__(self, url: str, pool: int) -> None:
        self.url = url
        self._pool = pool
        self._api: docker.APIClient | None = None
        self._data_root = ""

    def connect(self) -> tuple[str, str]:
        """(NodeId, hostname) of the engine: its Swarm NodeID, or its own ID where it is in no swarm.

        Raises Unreachable.
        """
        with _engine_errors():
            tls = docker.utils.kwargs_from_env().get("tls") or False
            # The engine's own version of the API: newer engines refuse old ones.
            self._api = docker.APIClient(
                self.url,
                version="auto",
                tls=tls if self.url.startswith("tcp://") else False,
                timeout=_TIMEOUT,
                max_pool_size=self._pool,
            )
            info = self._api.info()
        self._data_root = info.get("DockerRootDir", "")
        return info.get("Swarm", {}).get("NodeID") or info["ID"], info["Name"]

    @property
    def paths(self) -> EnginePaths:
        """Where its own files lie on its node."""
        address = self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""
        return EnginePaths(address, self._data_root)

    def container(self, container_id: str) -> dict[str, Any]:
        """What the engine says of a container. Raises Refusal, Unreachable."""
        with _engine_errors():
            return dict(self._client.inspect_container(container_id))

    def volume(self, name: str) -> dict[str, Any] | None:
        """What the engine says of a volume; None where it has none. Raises Refusal, Unreachable."""
        with _engine_errors():
            try:
                return dict(self._client.inspect_volume(name))
            except docker.errors.NotFound:
                return None

    def holds_socket(self, container_id: str, path: str) -> bool:
        """Whether a socket lies there in the container, or one called docker.sock in the folder there.

        Raises Refusal, Unreachable.
        """
        mode = self._mode(container_id, path)
        if mode & _FOLDER:
            mode = self._mode(container_id, f"{path}/docker.sock")
        return bool(mode & _SOCKET)

    def _mode(self, container_id: str, path: str) -> int:
        """The file's mode, links not followed; 0 where there is no such file."""
        with self._archive("HEAD", container_id, path) as answer:
            if answer.status_code == 404:
                return 0
            if not answer.ok:
                message = f"the engine did not say what {path} is: {answer.status_code}"
                raise Refusal(Reason.ENGINE_ERROR, message)
            return int(_stat(answer)["mode"])

    def read_file(self, container_id: str, path: str) -> bytes | None:
        """A file of the container, empty where there is none; None where it cannot be read.

        That is: it is no file, too large, or behind links that lead nowhere. The engine follows links
        within the container only. Raises Unreachable.
        """
        for _ in range(_LINKS):
            with self._archive("GET", container_id, path) as answer:
                if answer.status_code == 404:
                    return b""
                if not answer.ok:
                    return None
                link = _stat(answer)["linkTarget"]
                if not link:
                    return _only_file(_beginning(answer))
            path = link
        return None

    @contextmanager
    def _archive(self, method: str, container_id: str, path: str) -> Iterator[requests.Response]:
        """The engine's answer of what lies at a path in a container: what it is, and as a tar."""
        api = self._client
        # docker-py's own call reads all of it, however much that is.
        url = f"{api.base_url}/v{api.api_version}/containers/{quote(container_id)}/archive"
        with (
            _engine_errors(),
            api.request(
                method, url, params={"path": path}, timeout=_TIMEOUT, stream=True
            ) as answer,
        ):
            yield answer

    def create(
        self, container_id: str, command: list[str], env: list[str], user: str, privileged: bool
    ) -> str:
        """Makes an exec, which does not run yet, and returns its ID. Raises Refusal, Unreachable."""
        with _engine_errors():
            created = self._client.exec_create(
                container_id, command, environment=env, user=user, privileged=privileged
            )
        return str(created["Id"])

    def start(self, exec_id: str) -> Generator[Frame, None, None]:
        """Starts the exec and yields its stdout (1) and stderr (2) as they come, until both are closed.

        Raises AlreadyStarted, Refusal, Unreachable, OutputCut.
        """
        try:
            with _engine_errors():
                stream: Any = self._client.exec_start(exec_id, socket=True)
                _wait_for_ever(stream)
        except Refusal as refusal:
            raise _start_refused(exec_id, refusal) from None
        try:
            yield from _unless_started(exec_id, _frames(_buffered(stream)))
        finally:
            _hang_up(stream)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """What the engine says of the exec. Raises UnknownExec, Refusal, Unreachable."""
        with _engine_errors():
            try:
                return dict(self._client.exec_inspect(exec_id))
            except docker.errors.NotFound as error:
                raise UnknownExec(error.explanation) from None

    def ends(self, since: int) -> Iterator[tuple[str, int, int]]:
        """(ID, exit code, when) of the execs that ended, and of those that end, as long as some do.

        They begin with what the engine remembers of its last 256 events, from `since` on (nanoseconds, by
        its clock). When none has come for 30 s, that is the end. Raises Refusal, Unreachable.
        """
        api = self._client
        asked = {
            "since": f"{since // 10**9}.{since % 10**9:09d}",
            "filters": json.dumps({"event": ["exec_die"]}),
        }
        with _engine_errors():
            # docker-py's own call would wait for a dead connection without end.
            url = f"{api.base_url}/v{api.api_version}/events"
            answer = api.get(url, params=asked, timeout=_TIMEOUT, stream=True)
        with closing(answer):
            if not answer.ok:
                raise Refusal(Reason.ENGINE_ERROR, answer.text)
            yield from map(_end, _until_silent(answer))

    def is_alive(self, container_id: str, pid: int) -> bool:
        """Whether the container has this process, by its number on the engine's machine.

        Raises Refusal, Unreachable.
        """
        with _engine_errors():
            top = self._client.top(container_id)
        column = top["Titles"].index("PID")
        return str(pid) in (process[column] for process in top["Processes"] or [])

    @property
    def _client(self) -> docker.APIClient:
        if self._api is None:
            raise Unreachable(f"{self.url} was never reached")
        return self._api


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except docker.errors.APIError as error:
        raise Refusal(_reason(error), str(error.explanation or error)) from None
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise Unreachable(str(error)) from error


def _until_silent(answer: requests.Response) -> Iterator[bytes]:
    """The lines of the answer, until none comes for a while. Raises Unreachable where it breaks off."""
    with _engine_errors():
        try:
            yield from answer.iter_lines()
        except requests.ConnectionError as error:
            if not isinstance(error.args[0], ReadTimeoutError):
                raise
        else:
            raise Unreachable("the engine ended its events")


def _end(event: bytes) -> tuple[str, int, int]:
    told = json.loads(event)
    attributes = told["Actor"]["Attributes"]
    return attributes["execID"], int(attributes["exitCode"]), told["timeNano"]


def _reason(error: docker.errors.APIError) -> Reason:
    if error.status_code == 404:
        return Reason.CONTAINER_NOT_FOUND
    if error.status_code == 409:
        paused = "paused" in str(error.explanation)
        return Reason.CONTAINER_PAUSED if paused else Reason.CONTAINER_NOT_RUNNING
    return Reason.ENGINE_ERROR


def _stat(answer: requests.Response) -> dict[str, Any]:
    """What the engine says of the file whose archive it answers with."""
    return dict(json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"])))


def _beginning(answer: requests.Response) -> bytes:
    """Of the body, what the largest file that we read may need."""
    body = b""
    for chunk in answer.iter_content(_READ):
        body += chunk
        if len(body) > _FILE:
            break
    return body


def _only_file(archive: bytes) -> bytes | None:
    """The file that the tar holds; None where it holds something else, or the file's beginning only."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            if not member or not member.isfile() or member.size > _FILE:
                return None
            content = tar.extractfile(member)
            return content.read() if content else None
    except tarfile.TarError:
        return None


def _start_refused(exec_id: str, refusal: Refusal) -> Exception:
    if refusal.reason == Reason.CONTAINER_NOT_RUNNING and exec_id in str(refusal):
        return AlreadyStarted(str(refusal))
    if MEANINGS[refusal.reason].container_is_away:
        return Refusal(Reason.CONTAINER_GONE, str(refusal))
    return refusal


def _unless_started(exec_id: str, output: Iterator[Frame]) -> Iterator[Frame]:
    """The output; raises AlreadyStarted where it is the engine's word that the exec was started before.

    Engines answer a second start as they answer a first one, and say no in the place of the output. The
    words differ; on all engines they are one piece on stdout and nothing after it, which names the exec
    and ends as HTTP ends lines. No command prints this by accident: it is told its exec's ID nowhere.
    """
    first = next(output, None)
    if first and _may_refuse(exec_id, first):
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


def _may_refuse(exec_id: str, frame: Frame) -> bool:
    number, chunk = frame
    return number == _STDOUT and exec_id.encode() in chunk and chunk.endswith(b"\r\n")


def _connection(stream: Any) -> socket.socket:
    """Over TLS docker-py hands out the socket itself, else a file object around it."""
    connection: socket.socket = getattr(stream, "_sock", stream)
    return connection


def _hang_up(stream: Any) -> None:
    """Ends the connection now; closing the stream would leave that to the garbage collector.

    A command that still prints would wait for its reader until then.
    """
    with suppress(OSError):  # the engine was first
        _connection(stream).shutdown(socket.SHUT_RDWR)
    stream.close()


def _wait_for_ever(stream: Any) -> None:
    """Takes the calls' time-out off the connection that the output comes by."""
    connection = _connection(stream)
    connection.settimeout(None)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _buffered(stream: Any) -> io.BufferedReader:
    """The reader that took the answer's header off the socket.

    The first output may have come in the same packet; then it waits in this reader, and whoever reads
    the bare socket, as docker-py does, never sees it.
    """
    reader: io.BufferedReader = stream._response.raw._fp.fp
    return reader


def _frames(stream: io.BufferedReader) -> Iterator[Frame]:
    """The engine's multiplexed stream (API reference, "Stream format")."""
    while header := _read(stream, _FRAME_HEADER.size):
        if len(header) < _FRAME_HEADER.size:
            raise OutputCut("the engine closed the stream within a frame's header")
        number, left = _FRAME_HEADER.unpack(header)
        while left:
            chunk = _read(stream, min(left, _READ))
            if not chunk:
                raise OutputCut("the engine closed the stream within a frame")
            left -= len(chunk)
            yield number, chunk


def _read(stream: io.BufferedReader, size: int) -> bytes:
    """The next so many bytes, or fewer where many are wanted or the stream ends."""
    try:
        return stream.read(size) if size <= _SMALL else stream.read1(size)
    except OSError as error:
        raise OutputCut(str(error)) from error
