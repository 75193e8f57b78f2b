"""All of it on the deployed stack: jobs from end to end, upkeep, the contract."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from deploy.project import LOCAL
from deploy.queues import bring_up_to_date
from dev.swarm import Swarm
from tests.contract.client import Json, least, ok, target, unique
from tests.deployed.conftest import PREFIX, Deployed
from tests.support.waiting import eventually

Process = subprocess.Popen[bytes]
StartWorker = Callable[[], Process]
# What it prints first is more than a part of a multipart upload must have, so its log grows by one. It
# lasts longer than its message is invisible, so that who adopts it has to hold the message.
GROWING = "sh -c 'head -c 6000000 /dev/zero; sleep 5; head -c 9000 /dev/zero; sleep 100'"
GROWN_BYTES = 6_009_000
HOUR_SECONDS = 3600
SCHEDULED = {
    "version": "0",
    "id": "1",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "000000000000",
    "time": "2026-01-01T00:00:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail": {},
}


@pytest.fixture
def worker(deployed: Deployed, swarm: Swarm, start_worker: StartWorker) -> Iterator[Process]:
    """A worker that has announced its node; killed after the test."""
    worker = start_worker()
    eventually(lambda: item(deployed, "nodes", NodeId=swarm.manager.node_id), 60)
    yield worker
    worker.kill()


@pytest.fixture
def container(swarm: Swarm) -> Json:
    """The only container of the node."""
    (container_id,) = swarm.manager.containers()
    return {"ContainerId": container_id, "NodeId": swarm.manager.node_id}


def item(deployed: Deployed, table: str, **key: str) -> Json:
    """What DynamoDB has under the key."""
    typed = {name: {"S": value} for name, value in key.items()}
    answer = deployed.client("dynamodb").get_item(TableName=f"{PREFIX}-{table}", Key=typed)
    assert "Item" in answer, f"nothing in {table} for {key}"
    return dict(answer["Item"])


def until(deployed: Deployed, execution: tuple[str, str], status: str) -> Json:
    """The execution's only result, once it has the status."""

    def reached() -> Json:
        (result,) = deployed.api.execution(*execution)["Result"]
        assert result["Status"] == status, result
        return dict(result)

    return eventually(reached, 240)


@pytest.mark.usefixtures("deployed")
def test_the_template_is_as_cloudformation_wants_it() -> None:
    """MiniStack takes what Amazon's does not."""
    lint = str(Path(sys.executable).with_name("cfn-lint"))
    template = LOCAL / "package" / PREFIX / "sam.json"
    done = subprocess.run([lint, str(template)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("worker")
def test_a_job_from_end_to_end(deployed: Deployed, container: Json) -> None:
    fields = least(Cmd="sh -c 'echo -n $0 | wc -c'", SecretArgs=["a secret"])
    job_id = ok(deployed.api.create(fields))["JobId"]
    execution = (job_id, deployed.api.new_execution(job_id, [container]))
    result = until(deployed, execution, "FINISHED")
    assert (result["ExitCode"], result["Output"]) == (0, "8\n")
    # The function that the worker's report triggers closes it.
    eventually(lambda: is_closed(deployed, execution), 120)


def is_closed(deployed: Deployed, execution: tuple[str, str]) -> None:
    """Asserts that the execution is closed."""
    stored = item(deployed, "executions", JobId=execution[0], ExecutorId=execution[1])
    assert "Open" not in stored
    assert stored["Succeeded"] == {"N": "1"}


def test_a_dead_workers_command_is_adopted(
    deployed: Deployed, container: Json, worker: Process, start_worker: StartWorker
) -> None:
    job_id = ok(deployed.api.create(least(Cmd=GROWING)))["JobId"]
    execution = (job_id, deployed.api.new_execution(job_id, [container]))
    until(deployed, execution, "RUNNING")
    eventually(lambda: grown(deployed, execution, container), 30)
    worker.kill()
    start_worker()
    result = until(deployed, execution, "FINISHED")
    assert (result["ExitCode"], result["OutputSize"]) == (0, GROWN_BYTES)
    assert result["OutputIncomplete"]


def grown(deployed: Deployed, execution: tuple[str, str], container: Json) -> None:
    """Asserts that all that the command prints is in its log."""
    answer = deployed.api.log(*execution, container["ContainerId"])
    assert answer.status_code == 302
    assert len(requests.get(answer.headers["Location"], timeout=30).content) == GROWN_BYTES


@pytest.mark.usefixtures("worker")
def test_a_worker_changes_no_queue_and_lists_no_logs(
    deployed: Deployed, swarm: Swarm, worker_key: dict[str, str]
) -> None:
    name = f"{PREFIX}-node-{swarm.manager.node_id}"
    sqs, owners = as_worker(deployed, worker_key, "sqs"), deployed.client("sqs")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    changed = {"VisibilityTimeout": "7", "Policy": json.dumps({"Statement": []})}
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    with pytest.raises(ClientError, match="AccessDenied"):
        as_worker(deployed, worker_key, "s3").list_objects_v2(Bucket=deployed.outputs["LogBucket"])
    # Its owner may, and the next deployment sets it right.
    owners.set_queue_attributes(QueueUrl=url, Attributes=changed)
    bring_up_to_date(owners, deployed.outputs)
    found = owners.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert found["VisibilityTimeout"] == "60"
    assert not found.get("Policy")
    assert deployed.outputs["DeadLetterQueueArn"] in found["RedrivePolicy"]


def as_worker(deployed: Deployed, key: dict[str, str], service: str) -> Any:
    """A client with the rights of a worker."""
    return boto3.client(
        service,
        endpoint_url=deployed.aws.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
    )


def test_upkeep_ends_what_nobody_ends(deployed: Deployed) -> None:
    backstage = deployed.backstage
    node = backstage.announce()
    job_id = ok(deployed.api.create(least()))["JobId"]
    expired, lost = target(node.node_id), target("gone")
    executor_id = deployed.api.new_execution(job_id, [expired, lost])
    execution = (job_id, aged(deployed, job_id, executor_id))
    backstage.put_result(execution, lost, "RUNNING", ID="1")
    backstage.put_segment(execution, lost["ContainerId"], 0, b"half of it")
    upkeep(deployed)
    assert deployed.api.log(*execution, lost["ContainerId"]).content == b"half of it"
    results = deployed.api.execution(*execution)["Result"]
    assert [result["Reason"] for result in results] == ["expired", "lost"]
    stored = item(deployed, "executions", JobId=job_id, ExecutorId=execution[1])
    assert "Open" not in stored
    assert stored["Failed"] == {"N": "2"}


def test_upkeep_puts_off_an_execution_of_several_parts(deployed: Deployed) -> None:
    node = deployed.backstage.announce()
    job_id = ok(deployed.api.create(least()))["JobId"]
    executor_id = deployed.api.new_execution(job_id, [target(node.node_id) for _ in range(33)])
    key = {"JobId": {"S": job_id}, "ExecutorId": {"S": executor_id}}
    deployed.client("dynamodb").update_item(
        TableName=f"{PREFIX}-executions",
        Key=key,
        UpdateExpression="SET DueTime = :due",
        ExpressionAttributeValues={":due": {"N": "0"}},
    )
    upkeep(deployed)
    stored = item(deployed, "executions", JobId=job_id, ExecutorId=executor_id)
    # A minute would mean that the look failed.
    assert float(stored["DueTime"]["N"]) == pytest.approx(float(executor_id) + 120, abs=1)


def test_upkeep_sends_lost_messages_again(deployed: Deployed) -> None:
    node = deployed.backstage.announce()
    job_id = ok(deployed.api.create(least()))["JobId"]
    running = target(node.node_id)
    executor_id = deployed.api.new_execution(job_id, [running])
    execution = (job_id, aged(deployed, job_id, executor_id))
    deployed.backstage.put_result(execution, running, "RUNNING", ID="1")
    deployed.backstage.messages(node, 1)
    upkeep(deployed)
    (message,) = deployed.backstage.messages(node, 1)
    assert (message["JobId"], message["ExecutorId"]) == execution


def test_a_dead_letter_ends_its_target(deployed: Deployed) -> None:
    node = deployed.backstage.announce()
    job_id = ok(deployed.api.create(least()))["JobId"]
    running = target(node.node_id)
    execution = (job_id, deployed.api.new_execution(job_id, [running]))
    deployed.backstage.put_result(execution, running, "RUNNING", ID="1")
    deployed.backstage.put_segment(execution, running["ContainerId"], 0, b"half of it")
    (message,) = deployed.backstage.messages(node, 1)
    queue = deployed.physical("DeadLetterQueue")
    deployed.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(message))
    assert until(deployed, execution, "RUNNING_FAILED")["Reason"] == "lost"
    assert deployed.api.log(*execution, running["ContainerId"]).content == b"half of it"


def aged(deployed: Deployed, job_id: str, executor_id: str) -> str:
    """Makes a copy of the execution that was started two hours ago; returns its ExecutorId."""
    stored = item(deployed, "executions", JobId=job_id, ExecutorId=executor_id)
    before = f"{time.time() - 2 * HOUR_SECONDS:.6f}"
    # The nodes were known then.
    targets = {**json.loads(stored["Targets"]["S"]), "Refused": {}}
    changes = {
        "ExecutorId": {"S": before},
        "Targets": {"S": json.dumps(targets)},
        "DueTime": {"N": before},
    }
    deployed.client("dynamodb").put_item(
        TableName=f"{PREFIX}-executions", Item={**stored, **changes}
    )
    return before


def upkeep(deployed: Deployed) -> None:
    """Runs upkeep once, as its schedule does."""
    answer = deployed.client("lambda").invoke(
        FunctionName=deployed.physical("Upkeep"), Payload=json.dumps(SCHEDULED)
    )
    assert "FunctionError" not in answer, answer["Payload"].read()


def test_the_functions_log_no_secret_and_no_token(deployed: Deployed) -> None:
    marker = unique("m4rk3r")
    job = ok(deployed.api.create(least(SecretArgs=[marker])))
    masked = {**least(SecretArgs=[job["SecretArgs"][0], f"2 {marker}"]), "AppName": job["AppName"]}
    ok(deployed.api.put(job["JobId"], masked))
    ok(deployed.api.start(job["JobId"], [target("n")]))
    wrong = deployed.api.create({**least(SecretArgs=[marker, "***"]), "Cmd": "'"})
    assert wrong.status_code == 400
    token = deployed.api.headers["Authorization"].removeprefix("Bearer ")
    upkeep(deployed)
    logs = {name: logged(deployed, name) for name in ("api", "authorizer", "upkeep")}
    assert f"/api/jobs/{job['JobId']}/start" in logs["api"]
    for name, text in logs.items():
        assert "START RequestId" in text, f"{name} logged nothing"
        assert marker not in text, f"a secret is in the log of {name}"
        assert token not in text, f"a token is in the log of {name}"


def logged(deployed: Deployed, function: str) -> str:
    """All that a function logged."""
    pages = deployed.client("logs").get_paginator("filter_log_events")
    group = f"/appjobs/{PREFIX}/{function}"
    return "\n".join(
        event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]
    )


def test_contract(contract_run: subprocess.CompletedProcess[str]) -> None:
    assert contract_run.returncode == 0, contract_run.stdout[-20_000:]
