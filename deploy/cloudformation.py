"""Makes or updates a CloudFormation stack, and turns its outputs into settings."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError, WaiterError

# What a worker must know about the stack that the API belongs to.
SETTINGS = (
    "APPJOBS_PREFIX",
    "LOG_BUCKET",
    "DEAD_LETTER_QUEUE_ARN",
    "ENDED_QUEUE_URL",
    "RETENTION_DAYS",
    "DELIVERY_DEADLINE",
    "AWS_DEFAULT_REGION",
)
# Between two looks at a stack, in seconds: a local AWS takes a moment, Amazon's takes minutes.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# How long a stack may take.
_READY_SECONDS = 3600.0
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
# The stack's own event that each of our changes begins with.
_BEGINNINGS = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "IMPORT_IN_PROGRESS"}
# The last event of a resource has one of these if the resource is left after its stack was undone.
_LEFT = {"CREATE_COMPLETE", "DELETE_SKIPPED", "DELETE_FAILED"}
# What to do about a stack that can be neither made nor updated.
_IN_THE_WAY = {
    "REVIEW_IN_PROGRESS": "a change set of it was never executed: execute it, or delete the stack",
    "CREATE_FAILED": "its creation failed, and was not undone: delete the stack",
    "ROLLBACK_FAILED": "its creation failed, and could not be undone: delete the stack",
    "DELETE_FAILED": "it could not be deleted. Its events say why; delete it once more",
    "UPDATE_FAILED": "an update failed, and was not undone: aws cloudformation rollback-stack",
    "UPDATE_ROLLBACK_FAILED": "an update could not be undone: its events say why; then "
    "aws cloudformation continue-update-rollback",
}


class DeployError(Exception):
    """A stack cannot be made or updated; the text says why."""


def deploy_stack(client: Any, stack: dict[str, Any]) -> dict[str, str]:
    """Makes or updates a stack of CloudFormation, and returns its outputs. Raises DeployError.

    A creation that fails leaves nothing behind, not even what outlives its stack otherwise: so it can be
    tried again.
    """
    name = stack["StackName"]
    try:
        former = find_stack(client, name)
        if former and former["StackStatus"] == "ROLLBACK_COMPLETE":
            _clear_away(client, former)
            former = None
        if former is None:
            return _create(client, stack)
        if former["StackStatus"] in _IN_THE_WAY:
            raise DeployError(
                f"the stack {name} is {former['StackStatus']}: {_IN_THE_WAY[former['StackStatus']]}"
            )
        return _update(client, stack)
    except ClientError as error:
        raise DeployError(f"deploying {name}: {error}") from None


def import_stack(client: Any, stack: dict[str, Any], resources: list[dict[str, Any]]) -> None:
    """Makes a stack of resources that are there already. Raises DeployError."""
    name = stack["StackName"]
    try:
        made = client.create_change_set(
            **stack, ChangeSetName="import", ChangeSetType="IMPORT", ResourcesToImport=resources
        )
        _prepare(client, made)
        client.execute_change_set(ChangeSetName=made["Id"])
        _expect_done(client, _settled(client, made["StackId"]))
    except ClientError as error:
        raise DeployError(f"importing into {name}: {error}") from None


def _prepare(client: Any, made: dict[str, Any]) -> None:
    """Waits for a change set of a new stack. If it is refused, nothing is left of that stack."""
    try:
        client.get_waiter("change_set_create_complete").wait(ChangeSetName=made["Id"])
    except WaiterError as error:
        client.delete_stack(StackName=made["StackId"])
        reason = error.last_response.get("StatusReason", str(error))
        raise DeployError(f"CloudFormation refuses to import: {reason}") from None


def find_stack(client: Any, name: str) -> dict[str, Any] | None:
    """The stack of that name, if there is one."""
    try:
        return _describe(client, name)
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def stack_outputs(client: Any, name: str) -> dict[str, str]:
    """The outputs of a stack that exists."""
    return _outputs(_describe(client, name))


def settings_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """The settings of API and worker among a stack's outputs, whose names know no underscores."""
    return {name: outputs[name.title().replace("_", "")] for name in SETTINGS}


def _create(client: Any, stack: dict[str, Any]) -> dict[str, str]:
    made = client.create_stack(**stack, OnFailure="DELETE", RetainExceptOnCreate=True)
    # A stack that is deleted can be found only by its id.
    return _expect_done(client, _settled(client, made["StackId"]))


def _update(client: Any, stack: dict[str, Any]) -> dict[str, str]:
    try:
        client.update_stack(**stack, RetainExceptOnCreate=True)
    except ClientError as error:
        if "No updates" not in str(error):
            raise
        # It may be as it was before an update that failed: that is what is asked for now.
        return stack_outputs(client, stack["StackName"])
    return _expect_done(client, _settled(client, stack["StackName"]))


def _clear_away(client: Any, stack: dict[str, Any]) -> None:
    """Deletes a stack whose creation was undone. Raises DeployError if something of it is left."""
    name, stack_id = stack["StackName"], stack["StackId"]
    newest: dict[str, dict[str, Any]] = {}
    for event in _events(client, stack):
        newest.setdefault(event["LogicalResourceId"], event)
    left = [
        f"{event['ResourceType']} {event['PhysicalResourceId']}"
        for event in newest.values()
        if event["ResourceStatus"] in _LEFT and event["PhysicalResourceId"] != stack_id
    ]
    if left:
        raise DeployError(
            f"an earlier deployment of the stack {name} failed and left this behind: {', '.join(left)}. "
            "Nothing has used it since: delete it, then the stack, and deploy again"
        )
    client.delete_stack(StackName=name)
    status = _settled(client, stack_id)["StackStatus"]
    if status != "DELETE_COMPLETE":
        raise DeployError(
            f"an earlier deployment of the stack {name} failed, and now it is {status}: delete it"
        )


def _settled(client: Any, name: str) -> dict[str, Any]:
    """The stack, once nothing changes it any more. Raises DeployError if that takes too long."""
    pause = _FIRST_PAUSE
    deadline = time.monotonic() + _READY_SECONDS
    while (stack := _describe(client, name))["StackStatus"].endswith("_IN_PROGRESS"):
        if time.monotonic() > deadline:
            raise DeployError(
                f"the stack {name} is still {stack['StackStatus']} "
                f"after {_READY_SECONDS / 60:.0f} minutes: "
                f"aws cloudformation describe-stack-events --stack-name {name} says what it waits for"
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return stack


def _expect_done(client: Any, stack: dict[str, Any]) -> dict[str, str]:
    """The stack's outputs. Raises DeployError if its last change failed."""
    name, status = stack["StackName"], stack["StackStatus"]
    if status == "DELETE_COMPLETE":
        raise DeployError(
            f"the stack {name} could not be made, and nothing of it is left: {_reasons(client, stack)}"
        )
    if status not in _DONE:
        raise DeployError(f"the stack {name} is {status}: {_reasons(client, stack)}")
    return _outputs(stack)


def _reasons(client: Any, stack: dict[str, Any]) -> str:
    """What failed since the stack's last creation or update began, the first failure first."""
    reasons: list[str] = []
    for event in _events(client, stack):
        status = event["ResourceStatus"]
        if event.get("ResourceStatusReason") and "FAILED" in status:
            reasons.append(f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}")
        if event.get("PhysicalResourceId") == stack["StackId"] and status in _BEGINNINGS:
            break
    if any("DescribeEvents" in reason for reason in reasons):
        reasons += _validation_failures(client, stack)
    return "; ".join(reversed(reasons)) or "see its events"


def _events(client: Any, stack: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What happened to a stack and its resources, the newest first."""
    pages = client.get_paginator("describe_stack_events").paginate(StackName=stack["StackId"])
    return (event for page in pages for event in page["StackEvents"])


def _validation_failures(client: Any, stack: dict[str, Any]) -> list[str]:
    """What CloudFormation found before it touched anything, such as names that are taken."""
    pages = client.get_paginator("describe_events").paginate(
        StackName=stack["StackId"], Filters={"FailedEvents": True}
    )
    return [
        f"{event['LogicalResourceId']}: {event['ValidationStatusReason']}"
        for page in pages
        for event in page["OperationEvents"]
        if event.get("ValidationStatus") == "FAILED"
    ]


def _describe(client: Any, name: str) -> dict[str, Any]:
    return dict(client.describe_stacks(StackName=name)["Stacks"][0])


def _outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
