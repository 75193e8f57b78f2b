"""What the engine answers about a file of a container: what the file is, and a tar of it."""

import base64
import io
import json
import tarfile
from typing import Any

import requests

# No file that is larger than this is read.
_FILE_BYTES = 1024**2
_READ_BYTES = 256 * 1024
# In a file's mode, as Go has it: the bits of the types that matter here.
_FOLDER, _SOCKET = 1 << 31, 1 << 24


def mode(answer: requests.Response) -> int:
    """The mode of the file."""
    return int(_stat(answer)["mode"])


def is_folder(mode: int) -> bool:
    """Whether a file of this mode is a folder."""
    return bool(mode & _FOLDER)


def is_socket(mode: int) -> bool:
    """Whether a file of this mode is a socket."""
    return bool(mode & _SOCKET)


def link_target(answer: requests.Response) -> str:
    """The path that the file leads to if it is a link; the empty string if it is not."""
    return str(_stat(answer)["linkTarget"])


def _stat(answer: requests.Response) -> dict[str, Any]:
    header = answer.headers["X-Docker-Container-Path-Stat"]
    return dict(json.loads(base64.b64decode(header)))


def content(answer: requests.Response) -> bytes | None:
    """What is in the file; None if it is too large, or not a plain file."""
    return _only_file(_beginning(answer))


def _beginning(answer: requests.Response) -> bytes:
    """The beginning of the body: enough for the largest file that we read."""
    body = b""
    for chunk in answer.iter_content(_READ_BYTES):
        body += chunk
        if len(body) > _FILE_BYTES:
            break
    return body


def _only_file(archive: bytes) -> bytes | None:
    """What is in the file that the tar has; None if it is something else, or not all of it is there."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            if not member or not member.isfile() or member.size > _FILE_BYTES:
                return None
            file = tar.extractfile(member)
            return file.read() if file else None
    except tarfile.TarError:
        return None
