"""Ports and URLs of this machine: which are free, which answer, and that no proxy comes between."""

import os
import socket
import urllib.request
from collections.abc import Mapping

from dev.errors import LocalError

LOOPBACK = "127.0.0.1"


def free_port(bind: str = LOOPBACK) -> int:
    """A port of that address on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((bind, 0))
        return int(probe.getsockname()[1])


def check_port(bind: str, port: int) -> None:
    """Raises LocalError if something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise LocalError(f"port {port} of {bind} is taken ({error.strerror})") from None


def reachable_at(bind: str, port: int) -> str:
    """The URL of what listens there. `0.0.0.0` means all addresses of this machine."""
    return f"http://{LOOPBACK if bind == '0.0.0.0' else bind}:{port}"


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET of the URL is answered with success within a few seconds."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def go_without_proxy(host: str) -> None:
    """From now on, this process and its children use no proxy for that host and for this machine."""
    os.environ.update(proxy_exceptions(host))


def proxy_exceptions(host: str) -> dict[str, str]:
    """The variables with the hosts that need no proxy: those of before, that host and this machine."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [one.strip() for one in given.split(",") if one.strip()]
    hosts += [one for one in (LOOPBACK, "localhost", host) if one not in hosts]
    # Each program reads one of the two.
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(dict.fromkeys(hosts)))
