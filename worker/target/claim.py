"""Claims a target: makes its exec, and stores the exec's ID as the target's first result."""

import time

from chalicelib import store
from chalicelib.clients.queues import TargetMessage
from chalicelib.config import settings
from chalicelib.domain.errors import SecretsUnreadable
from chalicelib.domain.results import Failure
from chalicelib.domain.states import Reason, Status, expired_message, repeated_message
from chalicelib.store.models import Result
from worker import metrics
from worker.engine.client import Engine
from worker.engine.errors import Refusal
from worker.target.admission import admit
from worker.target.command import Command, Commands
from worker.target.ending import fail
from worker.target.outcome import explain_error


def claim(engine: Engine, node_id: str, commands: Commands, target: TargetMessage) -> Result | None:
    """The target's first result: `CREATED` with its exec, or `CREATE_FAILED`.

    None if another worker was first: then the exec that we made never starts. Raises Unreachable.
    """
    result = Result(
        store.results.result_key(target.job_id, target.executor_id, target.part),
        target.container_id,
        NodeId=node_id,
        Status=Status.CREATED,
        ExpiresAt=int(time.time() + settings.retention_seconds),
    )
    made = _make_exec(engine, commands, target, result)
    if isinstance(made, Failure):
        fail(result, Status.CREATE_FAILED, made)
    else:
        result.ID = made
    if not store.results.add_result(result):
        return None
    if result.Status != Status.CREATED:
        metrics.FINISHED.labels(result.Reason).inc()
    return result


def _make_exec(
    engine: Engine, commands: Commands, target: TargetMessage, result: Result
) -> str | Failure:
    """The ID of a new exec, or why there can be none."""
    try:
        command = commands.load(target)
    except SecretsUnreadable as error:
        return explain_error(error)
    result.ExpiresAt = command.expires
    deadline = settings.delivery_deadline_seconds
    if time.time() > command.created + deadline:
        return Failure(Reason.EXPIRED, expired_message(deadline))
    try:
        arguments = _arguments(command)
        container = engine.inspect_container(target.container_id)
        user = admit(engine, command, container)
        _take_container(commands, target, result, container["Id"])
        return engine.create(container["Id"], arguments, command.env, user, command.privileged)
    except Refusal as refusal:
        return Failure(refusal.reason, command.scrub(str(refusal)))


def _take_container(
    commands: Commands, target: TargetMessage, result: Result, long_id: str
) -> None:
    """Makes the target the only one of its container. Raises Refusal if another one has it."""
    if result.ContainerId == long_id:
        return  # The claim itself does this: it is stored under the long id.
    part = commands.part_of_container(target, result.NodeId, long_id)
    key = store.results.result_key(target.job_id, target.executor_id, part)
    first = store.results.take_container(result, key, long_id)
    if first != result.ContainerId:
        raise Refusal(Reason.CONTAINER_REPEATED, repeated_message(first))


def _arguments(command: Command) -> list[str]:
    try:
        return command.words + command.secrets
    except ValueError as error:  # saved when commands were split by other rules
        message = f"Cmd does not split into words as a POSIX shell splits them: {error}"
        raise Refusal(Reason.COMMAND_INVALID, message) from None
