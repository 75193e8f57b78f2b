"""One Docker Engine, and the calls to it that a target needs."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import docker
import docker.utils
import requests
from urllib3.exceptions import ReadTimeoutError

from chalicelib.domain.states import Reason
from worker.engine import archive, stream
from worker.engine.errors import Refusal, UnknownExec, Unreachable, engine_errors
from worker.engine.paths import EnginePaths
from worker.engine.stream import Frame

# The engine answers these calls from memory. Only an engine that hangs takes longer.
_TIMEOUT_SECONDS = 30
# At most this many links are followed to a file in a container.
_LINKS = 5


class Engine:
    """The calls that a target needs. Several threads may use one Engine. Making it does no I/O."""

    def __init__(self, url: str, pool: int) -> None:
        self.url = url
        self._pool = pool
        self._api: docker.APIClient | None = None
        self._data_root = ""

    def connect(self) -> tuple[str, str]:
        """(NodeId, hostname) of the engine: its Swarm NodeID, or its own ID if it is in no swarm.

        Raises Unreachable.
        """
        with engine_errors():
            tls = docker.utils.kwargs_from_env().get("tls") or False
            # The engine's own version of the API: newer engines refuse old ones.
            self._api = docker.APIClient(
                self.url,
                version="auto",
                tls=tls if self.url.startswith("tcp://") else False,
                timeout=_TIMEOUT_SECONDS,
                max_pool_size=self._pool,
            )
            info = self._api.info()
        self._data_root = info.get("DockerRootDir", "")
        return info.get("Swarm", {}).get("NodeID") or info["ID"], info["Name"]

    @property
    def paths(self) -> EnginePaths:
        """Where the engine's own files are on its node."""
        address = self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""
        return EnginePaths(address, self._data_root)

    def inspect_container(self, container_id: str) -> dict[str, Any]:
        """What the engine says of a container. Raises Refusal, Unreachable."""
        with engine_errors():
            return dict(self._client.inspect_container(container_id))

    def inspect_volume(self, name: str) -> dict[str, Any] | None:
        """What the engine says of a volume; None if it has none. Raises Refusal, Unreachable."""
        with engine_errors():
            try:
                return dict(self._client.inspect_volume(name))
            except docker.errors.NotFound:
                return None

    def holds_socket(self, container_id: str, path: str) -> bool:
        """Whether the path in the container is a socket, or a folder with one called docker.sock.

        Raises Refusal, Unreachable.
        """
        mode = self._mode(container_id, path)
        if archive.is_folder(mode):
            mode = self._mode(container_id, f"{path}/docker.sock")
        return archive.is_socket(mode)

    def _mode(self, container_id: str, path: str) -> int:
        """The file's mode, links not followed; 0 if there is no such file."""
        with self._archive("HEAD", container_id, path) as answer:
            if answer.status_code == 404:
                return 0
            if not answer.ok:
                message = f"the engine did not say what {path} is: {answer.status_code}"
                raise Refusal(Reason.ENGINE_ERROR, message)
            return archive.mode(answer)

    def read_file(self, container_id: str, path: str) -> bytes | None:
        """What is in a file of the container: nothing if there is none, None if we cannot read it.

        We cannot read what is not a plain file, is too large, or is behind too many links. The engine
        follows links only within the container. Raises Unreachable.
        """
        for _ in range(_LINKS):
            with self._archive("GET", container_id, path) as answer:
                if answer.status_code == 404:
                    return b""
                if not answer.ok:
                    return None
                link = archive.link_target(answer)
                if not link:
                    return archive.content(answer)
            path = link
        return None

    @contextmanager
    def _archive(self, method: str, container_id: str, path: str) -> Iterator[requests.Response]:
        """The engine's answer about a path in a container: what it is, and a tar of it."""
        api = self._client
        # docker-py's own call would read the whole tar, however large it is.
        url = f"{api.base_url}/v{api.api_version}/containers/{quote(container_id)}/archive"
        with (
            engine_errors(),
            api.request(
                method, url, params={"path": path}, timeout=_TIMEOUT_SECONDS, stream=True
            ) as answer,
        ):
            yield answer

    def create(
        self, container_id: str, command: list[str], env: list[str], user: str, privileged: bool
    ) -> str:
        """Makes an exec and returns its ID. It does not run yet. Raises Refusal, Unreachable."""
        with engine_errors():
            created = self._client.exec_create(
                container_id, command, environment=env, user=user, privileged=privileged
            )
        return str(created["Id"])

    def start(self, exec_id: str) -> Generator[Frame, None, None]:
        """Starts the exec and yields its stdout (1) and stderr (2) as they come, until both are closed.

        It starts only when the first frame is asked for. Raises AlreadyStarted, Refusal, Unreachable,
        OutputCut.
        """
        try:
            with engine_errors():
                connection: Any = self._client.exec_start(exec_id, socket=True)
                stream.remove_timeout(connection)
        except Refusal as refusal:
            raise stream.start_error(exec_id, refusal) from None
        try:
            yield from stream.output(exec_id, connection)
        finally:
            stream.hang_up(connection)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """What the engine says of the exec. Raises UnknownExec, Refusal, Unreachable."""
        with engine_errors():
            try:
                return dict(self._client.exec_inspect(exec_id))
            except docker.errors.NotFound as error:
                raise UnknownExec(error.explanation) from None

    def follow_ends(self, since: int) -> Iterator[tuple[str, int, int]]:
        """Yields (ID, exit code, when) of each exec that has ended, then of each that ends.

        The first ones are those that the engine remembers: its last 256 events, from `since` on
        (nanoseconds, by the engine's clock). Returns when no event has come for 30 s. Raises Refusal,
        Unreachable.
        """
        api = self._client
        asked = {
            "since": f"{since // 10**9}.{since % 10**9:09d}",
            "filters": json.dumps({"event": ["exec_die"]}),
        }
        with engine_errors():
            # docker-py's own call has no timeout: it would wait for ever on a dead connection.
            url = f"{api.base_url}/v{api.api_version}/events"
            answer = api.get(url, params=asked, timeout=_TIMEOUT_SECONDS, stream=True)
        with closing(answer):
            if not answer.ok:
                raise Refusal(Reason.ENGINE_ERROR, answer.text)
            yield from map(_parse_end, _until_silent(answer))

    def is_alive(self, container_id: str, pid: int) -> bool:
        """Whether the container has this process, by its number on the engine's machine.

        Raises Refusal, Unreachable.
        """
        with engine_errors():
            top = self._client.top(container_id)
        column = top["Titles"].index("PID")
        return str(pid) in (process[column] for process in top["Processes"] or [])

    @property
    def _client(self) -> docker.APIClient:
        if self._api is None:
            raise Unreachable(f"{self.url} was never reached")
        return self._api


def _until_silent(answer: requests.Response) -> Iterator[bytes]:
    """The lines of the answer, until none comes for a while. Raises Unreachable if it breaks off."""
    with engine_errors():
        try:
            yield from answer.iter_lines()
        except requests.ConnectionError as error:
            if not isinstance(error.args[0], ReadTimeoutError):
                raise
        else:
            raise Unreachable("the engine ended its events")


def _parse_end(line: bytes) -> tuple[str, int, int]:
    event = json.loads(line)
    attributes = event["Actor"]["Attributes"]
    return attributes["execID"], int(attributes["exitCode"]), event["timeNano"]
