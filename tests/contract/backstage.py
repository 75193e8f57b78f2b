"""What a worker would do and an operator could see: AWS, behind the API's back."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import msgspec
from boto3.dynamodb.types import TypeDeserializer
from botocore.config import Config

from .client import Json, container

DAY_SECONDS = 86_400
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=32,
    s3={"addressing_style": "path"},
)


@dataclass(frozen=True)
class Node:
    """An announced node and its queue."""

    node_id: str
    queue_url: str


class Backstage:
    """The tables, queues and logs of the stack under test."""

    def __init__(self, endpoint: str, environment: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environment = environment
        self._prefix = environment["APPJOBS_PREFIX"]
        self._bucket = environment["LOG_BUCKET"]
        self._dynamodb = self._client("dynamodb")
        self._sqs = self._client("sqs")
        self._s3 = self._client("s3")
        self._kms = self._client("kms")

    def _client(self, service: str) -> Any:
        env = self._environment
        own = env.get(f"AWS_ENDPOINT_URL_{service.upper()}")
        return boto3.client(
            service,
            endpoint_url=own or env.get("AWS_ENDPOINT_URL") or self._endpoint,
            region_name=env.get("AWS_DEFAULT_REGION") or env.get("AWS_REGION") or "us-east-1",
            aws_access_key_id=env.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=env.get("AWS_SECRET_ACCESS_KEY"),
            config=_CONFIG,
        )

    @property
    def retention_days(self) -> int:
        """How long executions are kept."""
        return int(self._environment.get("RETENTION_DAYS") or 30)

    def announce(self, node_id: str | None = None, version: int = 1) -> Node:
        """A node that a worker of that version serves; 0: one that knows no versions."""
        node_id = node_id or uuid4().hex[:25]
        queue = self._sqs.create_queue(QueueName=f"{self._prefix}-node-{node_id}")["QueueUrl"]
        item = {
            "NodeId": {"S": node_id},
            "Hostname": {"S": "contract"},
            "QueueUrl": {"S": queue},
            "Worker": {"S": "contract"},
            "Heartbeat": {"N": str(time.time())},
            **({"Version": {"N": str(version)}} if version else {}),
        }
        self._dynamodb.put_item(TableName=f"{self._prefix}-nodes", Item=item)
        return Node(node_id, queue)

    def forget(self, node: Node) -> None:
        """Takes the node back."""
        key = {"NodeId": {"S": node.node_id}}
        self._dynamodb.delete_item(TableName=f"{self._prefix}-nodes", Key=key)
        self._sqs.delete_queue(QueueUrl=node.queue_url)

    def messages(self, node: Node, expected: int) -> list[Json]:
        """All messages on the node's queue; waits until as many as expected are there."""
        bodies: list[Json] = []
        deadline = time.monotonic() + 30
        while len(bodies) < expected and time.monotonic() < deadline:
            bodies += self._receive(node, wait=1)
        while more := self._receive(node, wait=0):
            bodies += more
        return bodies

    def _receive(self, node: Node, wait: int) -> list[Json]:
        answer = self._sqs.receive_message(
            QueueUrl=node.queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            VisibilityTimeout=300,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        assert not any(message.get("MessageAttributes") for message in messages)
        return [json.loads(message["Body"]) for message in messages]

    def put_result(
        self, execution: tuple[str, str], target: Json, status: str, **more: Any
    ) -> None:
        """Writes one target's result, as a worker does."""
        self.put_results(execution, [(target, {"Status": status, **more})])

    def put_results(self, execution: tuple[str, str], results: Iterable[tuple[Json, Json]]) -> None:
        """Writes results, 25 in a request."""
        parts = self.parts(execution)
        items = [
            _result_item(execution, parts[target["ContainerId"]], target, more)
            for target, more in results
        ]
        table = f"{self._prefix}-results"
        for first in range(0, len(items), 25):
            requests = [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
            left: Json = {table: requests}
            while left:
                left = self._dynamodb.batch_write_item(RequestItems=left)["UnprocessedItems"]

    def break_result(self, execution: tuple[str, str], target: Json) -> None:
        """Writes a result that no code of ours ever writes."""
        part = self.parts(execution)[target["ContainerId"]]
        item = _result_item(execution, part, target, {"Status": "FINISHED"})
        item["Inspect"] = {"N": "7"}
        item["Output"] = {"N": "7"}
        self._dynamodb.put_item(TableName=f"{self._prefix}-results", Item=item)

    def put_log(self, execution: tuple[str, str], container_id: str, content: bytes) -> None:
        """Stores a target's whole log, as a worker does at the command's end or if somebody wants it."""
        log = _log_name(execution, container_id)
        key = f"logs/{log}/{len(content)}.log"
        self._s3.put_object(
            Bucket=self._bucket, Key=key, Body=content, ContentType="text/plain; charset=utf-8"
        )
        self._set_state(log, "Assembled", len(content))

    def put_segment(
        self, execution: tuple[str, str], container_id: str, first: int, content: bytes
    ) -> None:
        """Stores a piece of the log of a running command, from the byte `first` on."""
        log = _log_name(execution, container_id)
        key = f"segments/{log}/{first}-{len(content)}"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        item = {
            "Log": {"S": log},
            "First": {"N": str(first)},
            "Size": {"N": str(len(content))},
            "ExpiresAt": {"N": str(int(time.time()) + DAY_SECONDS)},
        }
        self._dynamodb.put_item(TableName=f"{self._prefix}-segments", Item=item)

    def catch_up(self, execution: tuple[str, str], container_id: str) -> None:
        """Says that the log is as new as every reader wants it, for the next hours."""
        log = _log_name(execution, container_id)
        self._set_state(log, "CaughtUp", time.time() + DAY_SECONDS)

    def _set_state(self, log: str, name: str, value: float) -> None:
        self._dynamodb.update_item(
            TableName=f"{self._prefix}-segments",
            Key={"Log": {"S": log}, "First": {"N": "-1"}},
            UpdateExpression="SET #name = :value, ExpiresAt = :expires",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={
                ":value": {"N": str(value)},
                ":expires": {"N": str(int(time.time()) + DAY_SECONDS)},
            },
        )

    def wishes(self, execution: tuple[str, str]) -> Json:
        """What somebody wants of the execution; empty if nothing."""
        key = {"Execution": {"S": "/".join(execution)}}
        answer = self._dynamodb.get_item(
            TableName=f"{self._prefix}-wishes", Key=key, ConsistentRead=True
        )
        return _plain(answer.get("Item", {}))

    def snapshot(self, job_id: str, executor_id: str) -> Json:
        """The execution's item: what a worker will run."""
        key = {"JobId": {"S": job_id}, "ExecutorId": {"S": executor_id}}
        answer = self._dynamodb.get_item(
            TableName=f"{self._prefix}-executions", Key=key, ConsistentRead=True
        )
        return _plain(answer["Item"])

    def parts(self, execution: tuple[str, str]) -> dict[str, int]:
        """In which part of the execution's targets each container is."""
        stored = self.snapshot(*execution)
        if stored["Parts"] == 1:
            nodes = {0: json.loads(stored["Targets"])["Nodes"]}
        else:
            answer = self._dynamodb.query(
                TableName=f"{self._prefix}-targets",
                KeyConditionExpression="Execution = :execution",
                ExpressionAttributeValues={":execution": {"S": "/".join(execution)}},
                ConsistentRead=True,
            )
            items = [_plain(item) for item in answer["Items"]]
            nodes = {int(item["Part"]): json.loads(item["Nodes"]) for item in items}
        return {
            container_id: part
            for part, by_node in nodes.items()
            for targets in by_node.values()
            for _, container_id in targets
        }

    def job(self, job_id: str) -> Json:
        """The job's item."""
        key = {"JobId": {"S": job_id}}
        answer = self._dynamodb.get_item(
            TableName=f"{self._prefix}-jobs", Key=key, ConsistentRead=True
        )
        return _plain(answer["Item"])

    def set_executors(self, job_id: str, executors: list[str]) -> None:
        """Gives the job another past."""
        self._dynamodb.update_item(
            TableName=f"{self._prefix}-jobs",
            Key={"JobId": {"S": job_id}},
            UpdateExpression="SET Executors = :e",
            ExpressionAttributeValues={":e": {"L": [{"S": one} for one in executors]}},
        )

    def expire_token(self, token: str) -> None:
        """Ends the token's life a moment ago."""
        self._dynamodb.update_item(
            TableName=f"{self._prefix}-tokens",
            Key={"Hash": {"S": hashlib.sha256(token.encode()).hexdigest()}},
            UpdateExpression="SET ExpiresAt = :now",
            ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
        )

    def secrets(self, job_id: str, executor_id: str) -> list[str]:
        """The secret arguments that a worker would append."""
        packed = self.snapshot(job_id, executor_id).get("Sealed")
        sealed = msgspec.msgpack.decode(packed.value) if packed else []
        return [self._open(job_id, ciphertext) for *_, ciphertext in sealed]

    def _open(self, job_id: str, ciphertext: bytes) -> str:
        if not ciphertext:
            return ""
        answer = self._kms.decrypt(CiphertextBlob=ciphertext, EncryptionContext={"JobId": job_id})
        return str(answer["Plaintext"].decode())

    def everything(self) -> Iterator[tuple[str, Json]]:
        """Each item of each table, with the table's name."""
        for page in self._dynamodb.get_paginator("list_tables").paginate():
            for table in page["TableNames"]:
                if table.startswith(self._prefix):
                    yield from ((table, item) for item in self._scan(table))

    def _scan(self, table: str) -> Iterator[Json]:
        for page in self._dynamodb.get_paginator("scan").paginate(TableName=table):
            yield from page["Items"]


def _plain(item: Json) -> Json:
    return {name: TypeDeserializer().deserialize(value) for name, value in item.items()}


def _log_name(execution: tuple[str, str], container_id: str) -> str:
    return f"{execution[0]}/{execution[1]}/{container_id}"


def _result_item(execution: tuple[str, str], part: int, target: Json, more: Json) -> Json:
    values = {
        "Execution": "/".join((*execution, str(part))),
        "ContainerId": target["ContainerId"],
        "NodeId": target["NodeId"],
        "ExpiresAt": int(time.time()) + DAY_SECONDS,
        **more,
    }
    return {name: _typed(value) for name, value in values.items()}


def _typed(value: Any) -> Json:
    match value:
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": str(value)}
        case bytes():
            return {"B": value}
        case dict():
            return {"S": json.dumps(value)}
        case _:
            return {"S": value}


def engine_inspect(target: Json, exit_code: int = 0) -> Json:
    """An exec inspect as the engine answers it, its secret arguments masked."""
    return {
        "ID": container(),
        "Running": False,
        "ExitCode": exit_code,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "ps",
            "arguments": ["axu", "*", "**"],
            "privileged": True,
            "user": "root:root",
        },
        "OpenStdin": False,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": target["ContainerId"],
        "DetachKeys": "",
        "Pid": 27396,
    }


def finished(
    target: Json, output: bytes = b"", size: int | None = None, exit_code: int = 0
) -> Json:
    """The attributes of a FINISHED result; a command that wrote nothing leaves no Output."""
    inspect = engine_inspect(target, exit_code)
    now = time.time()
    return {
        "Status": "FINISHED",
        "ID": inspect["ID"],
        "Inspect": inspect,
        "OutputSize": len(output) if size is None else size,
        "StartTime": round(now - 2, 6),
        "EndTime": round(now - 1, 6),
        **({"Output": output} if output else {}),
    }
