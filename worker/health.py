"""`/healthz` and `/metrics`, on the loopback interface.

A worker is healthy as long as its own loops turn. If AWS or an engine is down, a restart would not help,
and would lose the output that the worker holds.
"""

import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import make_wsgi_app

log = structlog.stdlib.get_logger(__name__)

_HOST = "127.0.0.1"
_METRICS: Callable[..., Iterable[bytes]] = make_wsgi_app()
# A loop that is silent for longer does not turn any more: even while AWS hangs, the calls of one turn
# take less, with all their tries.
_STALLED_SECONDS = 300
# Between two tries to get the port: an old worker that drains may still have it.
_BIND_SECONDS = 5


class Pulse:
    """One loop's sign of life."""

    def __init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """Says that the loop turns."""
        self._last = time.monotonic()

    def silent_for(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._last


class Health:
    """Which of the worker's loops turn."""

    def __init__(self) -> None:
        self._pulses: dict[str, Pulse] = {}

    def pulse(self, loop: str) -> Pulse:
        """A pulse for a loop that turns from now on."""
        self._pulses[loop] = Pulse()
        return self._pulses[loop]

    def ended(self, loop: str) -> None:
        """Forgets a loop that ended as it should."""
        self._pulses.pop(loop, None)

    def find_stalled(self) -> list[str]:
        """The loops that do not turn any more."""
        pulses = list(self._pulses.items())
        return [loop for loop, pulse in pulses if pulse.silent_for() > _STALLED_SECONDS]

    def serve(self, port: int) -> None:
        """Answers on this port from now on, in a thread, which waits for the port if it is taken."""
        threading.Thread(target=self._serve, args=(port,), name="health", daemon=True).start()

    def _serve(self, port: int) -> None:
        warned = False
        while True:
            try:
                server = make_server(_HOST, port, self._answer, _Server, _Quiet)
            except OSError as error:
                if not warned:
                    log.warning("no health port yet", port=port, error=str(error))
                warned = True
                time.sleep(_BIND_SECONDS)
            else:
                server.serve_forever()

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return _METRICS(environ, respond)
        if environ["PATH_INFO"] != "/healthz":
            return _text(respond, "404 Not Found", "there are /healthz and /metrics")
        if stalled := self.find_stalled():
            return _text(respond, "503 Service Unavailable", f"stalled: {', '.join(stalled)}")
        return _text(respond, "200 OK", "ok")


def _text(respond: Callable[..., Any], status: str, text: str) -> list[bytes]:
    respond(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing: a scrape is not news."""
