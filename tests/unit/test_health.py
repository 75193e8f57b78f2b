"""Liveness is about our own loops; what they count is there for Prometheus."""

from typing import Any

from tests.support.clock import Clock
from worker import health, metrics
from worker.health import Health


def get(of: Health, path: str) -> tuple[str, str]:
    """Status and text of the answer."""
    statuses: list[str] = []

    def respond(status: str, headers: Any) -> None:
        statuses.append(status)

    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    body = b"".join(of._answer(environ, respond)).decode()
    return statuses[0], body


def test_loops_that_turn_are_healthy(clock: Clock) -> None:
    worker = Health()
    lease, poll = worker.pulse("lease"), worker.pulse("poll")
    for _ in range(20):
        clock.now += 100
        lease.beat()
        poll.beat()
        assert get(worker, "/healthz") == ("200 OK", "ok\n")


def test_a_stalled_loop_is_named(clock: Clock) -> None:
    worker = Health()
    lease, poll = worker.pulse("lease"), worker.pulse("poll")
    clock.now += health._STALLED_SECONDS
    lease.beat()
    assert get(worker, "/healthz")[0] == "200 OK"
    clock.now += 1
    assert get(worker, "/healthz") == ("503 Service Unavailable", "stalled: poll\n")
    poll.beat()
    assert get(worker, "/healthz")[0] == "200 OK"


def test_a_loop_that_ended_as_it_should_does_not_count(clock: Clock) -> None:
    worker = Health()
    worker.pulse("poll")
    worker.ended("poll")
    clock.now += 10 * health._STALLED_SECONDS
    assert get(worker, "/healthz")[0] == "200 OK"


def test_metrics_are_in_prometheus_form() -> None:
    status, text = get(Health(), "/metrics")
    assert status == "200 OK"
    metrics.ADOPTED.inc()
    for name in ("appjobs_adopted_total", "appjobs_output_bytes_total"):
        assert f"\n{name} " in text


def test_other_paths_say_what_there_is() -> None:
    assert get(Health(), "/") == ("404 Not Found", "there are /healthz and /metrics\n")
