"""What an execution runs: read once for all its targets here, and forgotten with the last of them."""

import gc
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from chalicelib import store
from chalicelib.clients import sealing
from chalicelib.clients.aws import client
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.domain.errors import SecretsUnreadable
from chalicelib.store.models import Execution
from tests.support.builders import build_execution, build_targets
from tests.support.clock import NOW
from tests.unit.target.life import in_hand
from worker.target.command import Command, Commands

pytestmark = pytest.mark.usefixtures("aws")
TARGETS = [TargetMessage("j1", "1.000000", f"c{number}") for number in range(30)]


@pytest.fixture
def requests() -> Any:
    """How many requests of which kind went out since the execution was stored."""
    sealed = sealing.pack([sealing.seal("j1", "first"), sealing.seal("j1", "second")])
    containers = build_targets(*(target.container_id for target in TARGETS))
    build_execution(Cmd="echo", Sealed=sealed, targets=containers).save()
    counts = {"GetItem": 0, "Decrypt": 0}

    def count(model: Any, **_: Any) -> None:
        if model.name in counts:
            counts[model.name] += 1

    for service in (client("kms"), Execution._get_connection().connection.client):
        service.meta.events.register("before-call", count)
    return counts


def load_at_once(commands: Commands) -> list[Command]:
    barrier = Barrier(len(TARGETS))

    def load(target: TargetMessage) -> Command:
        barrier.wait(10)
        return commands.load(target)

    with ThreadPoolExecutor(len(TARGETS)) as pool:
        return list(pool.map(load, TARGETS))


def test_thirty_targets_at_once_are_one_read_and_one_request_per_secret(requests: Any) -> None:
    commands = Commands()
    for target in TARGETS:
        commands.hold(target)
    loaded = load_at_once(commands)
    assert [command.secrets for command in loaded] == [["first", "second"]] * 30
    assert requests == {"GetItem": 1, "Decrypt": 2}


def test_plain_secrets_leave_memory_with_the_last_target(requests: Any) -> None:
    commands = Commands()
    first, second = TARGETS[:2]
    commands.hold(first)
    with in_hand(commands, second):
        commands.load(second)
    commands.load(first)
    assert requests == {"GetItem": 1, "Decrypt": 2}
    commands.release(first)
    gc.collect()
    assert not any(isinstance(thing, Command) for thing in gc.get_objects())
    with in_hand(commands, first):
        commands.load(first)
    assert requests == {"GetItem": 2, "Decrypt": 4}


@pytest.mark.parametrize("error", [ConnectionError, SecretsUnreadable])
def test_a_failed_read_fails_for_all_that_waited_and_the_next_tries_again(
    requests: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    commands = Commands()
    with monkeypatch.context() as patch, in_hand(commands, TARGETS[0]):
        patch.setattr(
            store.executions, "get_execution", lambda *ids: (_ for _ in ()).throw(error("gone"))
        )
        with pytest.raises(error):
            commands.load(TARGETS[0])
        patch.undo()
        assert commands.load(TARGETS[0]).secrets == ["first", "second"]


def test_each_of_many_targets_keeps_a_shorter_end_of_its_output(message: Received) -> None:
    found = store.executions.get_execution("j1", message.target.executor_id)
    found.Total = 1000
    found.save()
    commands = Commands()
    with in_hand(commands, message.target):
        assert commands.load(message.target).tail == 4 * 1024**2 // 1000


def with_secrets(*secrets_: str) -> Command:
    return Command(
        line="echo",
        secrets=list(secrets_),
        env=[],
        user="",
        privileged=False,
        may_run_as_root=False,
        app_name="a",
        service_name="",
        own_containers_only=False,
        created=NOW,
        expires=0,
        tail=1,
    )


@pytest.mark.parametrize("secrets_", [(), ("",), ("a", "", "b b")])
def test_only_the_secrets_among_the_arguments_are_masked(secrets_: tuple[str, ...]) -> None:
    given = {"ProcessConfig": {"entrypoint": "echo", "arguments": ["a", *secrets_]}, "Pid": 1}
    masked = with_secrets(*secrets_).mask(given)
    assert masked["ProcessConfig"]["arguments"] == ["a", *("*" * len(text) for text in secrets_)]
    assert (masked["Pid"], masked["ProcessConfig"]["entrypoint"]) == (1, "echo")
    assert given["ProcessConfig"]["arguments"] == ["a", *secrets_]  # type: ignore[index]


def test_an_empty_secret_scrubs_nothing() -> None:
    assert with_secrets("").scrub("all right") == "all right"


def test_a_secret_that_holds_another_is_scrubbed_whole() -> None:
    assert "word" not in with_secrets("pass", "password").scrub("no password here")
