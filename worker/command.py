"""What an execution runs, its secrets opened; and how they are kept out of what is stored."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chalicelib import secrets, store
from chalicelib.models import Execution
from chalicelib.queues import TargetMessage
from chalicelib.words import split

# The end of the output in the result: this much, and this much for all results of an execution.
_TAIL, _ALL_TAILS = 32 * 1024, 4 * 1024**2
_MESSAGE = 2000


@dataclass(frozen=True)
class Command:
    """What an execution runs, its secrets opened."""

    line: str
    secrets: list[str]
    env: list[str]
    user: str
    privileged: bool
    may_run_as_root: bool
    app_name: str
    service_name: str
    own_containers_only: bool
    created: float
    expires: int
    tail: int

    @property
    def words(self) -> list[str]:
        """What is executed, without the secrets. Raises ValueError where the line does not split."""
        return split(self.line)

    def mask(self, inspect: dict[str, Any]) -> dict[str, Any]:
        """The engine's inspect with the secret arguments, which are the last ones, masked."""
        if not self.secrets:
            return inspect
        process = inspect["ProcessConfig"]
        plain = process["arguments"][: -len(self.secrets)]
        masked = [*plain, *("*" * len(secret) for secret in self.secrets)]
        return {**inspect, "ProcessConfig": {**process, "arguments": masked}}

    def scrub(self, message: str) -> str:
        """An error's text without secrets, and not too long to be stored a thousand times."""
        # The longest first: a secret may begin with another.
        for secret in sorted(self.secrets, key=len, reverse=True):
            message = message.replace(secret, "***") if secret else message
        return message[:_MESSAGE]


def is_target(target: TargetMessage, node_id: str) -> bool:
    """Whether the execution was accepted for this container on this node, which was known then.

    Raises ExecutionNotFound.
    """
    execution = _execution(target.job_id, target.executor_id)
    named = {"ContainerId": target.container_id, "NodeId": node_id}
    return named in execution.Target and node_id not in execution.UnknownNodes


# Many targets of one execution come in a row: its item, which lists all of them, is read once.
@lru_cache(maxsize=64)
def _execution(job_id: str, executor_id: str) -> Execution:
    return store.get_execution(job_id, executor_id)


@lru_cache(maxsize=64)
def load(job_id: str, executor_id: str) -> Command:
    """What to run. Raises ExecutionNotFound, SecretsUnreadable."""
    execution = _execution(job_id, executor_id)
    return Command(
        line=execution.Cmd,
        secrets=[secrets.unseal(job_id, sealed) for sealed in secrets.unpack(execution.Sealed)],
        env=list(execution.Env),
        user=execution.User,
        privileged=execution.Privileged,
        may_run_as_root=bool(execution.MayRunAsRoot),
        app_name=execution.AppName,
        service_name=execution.ServiceName,
        own_containers_only=bool(execution.OwnContainersOnly),
        created=float(executor_id),
        expires=int(execution.ExpiresAt),
        tail=min(_TAIL, _ALL_TAILS // len(execution.Target)),
    )
