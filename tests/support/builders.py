"""What is stored and sent, with only those fields in a test that matter to it."""

from typing import Any

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.clients.queues import Received, TargetMessage
from chalicelib.domain.targets import Refusal, split_into_parts
from chalicelib.domain.versions import WORKER_VERSION
from chalicelib.store.models import Execution, Job, Node, Result
from tests.support.clock import NOW

_COMMAND: dict[str, Any] = {
    "AppName": "a",
    "ServiceName": "",
    "Name": "n",
    "Cmd": "true",
    "Privileged": False,
    "User": "",
    "Env": [],
}


def build_targets(*containers: str, node: str = "n1") -> list[tuple[str, str]]:
    """As in a request: (NodeId, ContainerId) of each."""
    return [(node, container) for container in containers]


def build_job(job_id: str = "j1", **fields: Any) -> Job:
    return Job(job_id, **{"Revision": 1, "Executors": [], **_COMMAND, **fields})


def build_execution(
    job_id: str = "j1",
    executor_id: str = "1.000000",
    targets: list[tuple[str, str]] | None = None,
    refused: tuple[str, ...] = (),
    **fields: Any,
) -> Execution:
    """An execution that has one target, unless said otherwise, and is kept for 11 days.

    If it has several parts, they are stored, and what is counted of refused ones.
    """
    defaults = {"By": "me", "ExpiresAt": int(float(executor_id)) + 10**6}
    execution = Execution(job_id, executor_id, **{**_COMMAND, **defaults, **fields})
    reasons = dict.fromkeys(refused, Refusal("node_unknown"))
    parts = split_into_parts(targets or build_targets("c1"), reasons)
    for item in store.targets.place(execution, parts):
        item.save()
    for counts in store.counts.count_refused(execution, parts):
        counts.save()
    return execution


def build_result(
    job_id: str = "j1",
    executor_id: str = "1.000000",
    container: str = "c1",
    part: int = 0,
    **fields: Any,
) -> Result:
    key = store.results.result_key(job_id, executor_id, part)
    return Result(key, container, **{"NodeId": "n1", "ExpiresAt": 1, **fields})


def build_inspect(exec_id: str = "e1", container: str = "c1", code: int = 0) -> dict[str, Any]:
    """What an engine says of an exec that is over."""
    return {
        "ID": exec_id,
        "Running": False,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "sh",
            "arguments": ["-c", "echo hello"],
            "privileged": False,
            "user": "1000:1000",
        },
        "OpenStdin": False,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": container,
        "DetachKeys": "",
        "Pid": 27396,
    }


def build_node(node_id: str = "n1", **fields: Any) -> Node:
    defaults = {"Hostname": "h", "QueueUrl": "q", "Worker": "w", "Version": WORKER_VERSION}
    return Node(node_id, **{**defaults, "Heartbeat": NOW, **fields})


def serve_node(node_id: str = "n1", heartbeat: float = NOW, version: int = WORKER_VERSION) -> str:
    """A worker has announced the node; returns the URL of its queue."""
    url = queues.ensure_queue(node_id)
    store.nodes.announce(build_node(node_id, QueueUrl=url, Heartbeat=heartbeat, Version=version))
    return url


def build_message(
    container: str = "c1",
    executor_id: str = "1.000000",
    message_id: str = "m1",
    receipt: str = "r1",
    first: bool = True,
    app: str = "",
) -> Received:
    """A message as a worker gets it: the first delivery, or a later one."""
    target = TargetMessage("j1", executor_id, container, app)
    return Received(target, message_id, receipt, first)
