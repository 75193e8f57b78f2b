"""The calls to an engine, and what its errors mean."""

import inspect
import re
from typing import Any
from unittest.mock import create_autospec

import docker
import pytest
import requests

from chalicelib.domain.states import MEANINGS, Reason, Status
from worker.engine import errors
from worker.engine.client import Engine
from worker.engine.errors import AlreadyStarted, Refusal, UnknownExec, Unreachable
from worker.engine.paths import EnginePaths
from worker.engine.stream import start_error


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


# What engines refuse, and the reason for it.
REFUSALS = [
    (404, "No such container: c", Reason.CONTAINER_NOT_FOUND),
    (409, "Container c is not running", Reason.CONTAINER_NOT_RUNNING),
    (409, "Container c is paused, unpause it", Reason.CONTAINER_PAUSED),
    (500, "oops", Reason.ENGINE_ERROR),
]


def test_the_refusals_here_have_all_reasons_of_an_engine() -> None:
    given = re.findall(r"Reason\.(\w+)", inspect.getsource(errors._reason))
    assert given
    assert {Reason[name] for name in given} == {reason for *_, reason in REFUSALS}


@pytest.mark.parametrize(("status", "explanation", "reason"), REFUSALS)
def test_a_refused_start_has_a_reason_that_a_started_target_may_have(
    status: int, explanation: str, reason: Reason
) -> None:
    error = start_error("e1", Refusal(reason, explanation))
    assert isinstance(error, Refusal)
    assert Status.RUNNING_FAILED in MEANINGS[error.reason].statuses


@pytest.mark.parametrize(("status", "explanation", "reason"), REFUSALS)
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
def test_a_refused_start_says_whether_it_was_started_or_is_gone(
    connected: Engine, api: Any, status: int, explanation: str, expected: type[Exception]
) -> None:
    api.exec_start.side_effect = refused(status, explanation)
    with pytest.raises(expected) as raised:
        next(iter(connected.start("e1")))
    assert getattr(raised.value, "reason", None) in (None, Reason.CONTAINER_GONE)


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
        connected.inspect_container("c1")
    assert refusal.value.reason == Reason.CONTAINER_NOT_FOUND


def test_a_volume_that_is_not_there_is_none(api: Any, connected: Engine) -> None:
    api.inspect_volume.side_effect = refused(404, "no such volume")
    assert connected.inspect_volume("v1") is None


def test_the_node_is_known_by_its_socket_and_its_data(api: Any) -> None:
    api.info.return_value = {"ID": "AB:CD", "Name": "host", "DockerRootDir": "/srv/docker"}
    for url, address in (("unix:///srv/engine.sock", "/srv/engine.sock"), ("tcp://host:2376", "")):
        made = Engine(url, pool=1)
        made.connect()
        assert made.paths == EnginePaths(address, "/srv/docker")
