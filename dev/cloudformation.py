"""CloudFormation: a stack made or brought up to date, and what its outputs are for."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

# What a worker must know of the stack that the API belongs to.
SETTINGS = (
    "APPJOBS_PREFIX",
    "LOG_BUCKET",
    "DEAD_LETTER_QUEUE_ARN",
    "RETENTION_DAYS",
    "DELIVERY_DEADLINE",
    "AWS_DEFAULT_REGION",
)
# Between two looks at a stack, in seconds: a local AWS takes a moment, Amazon's minutes.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class DeployError(Exception):
    """A stack cannot be made or updated; the text says why."""


def deploy_stack(client: Any, stack: dict[str, Any]) -> dict[str, str]:
    """Makes or updates a stack of CloudFormation, and returns its outputs. Raises DeployError."""
    try:
        _create_or_update(client, stack)
    except ClientError as error:
        raise DeployError(f"deploying {stack['StackName']}: {error}") from None
    return _deployed(client, stack["StackName"])


def stack_outputs(client: Any, name: str) -> dict[str, str]:
    """The outputs of a stack that is there."""
    return _outputs(_describe(client, name))


def settings_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """The settings of API and worker among a stack's outputs, whose names know no underscores."""
    return {name: outputs[name.title().replace("_", "")] for name in SETTINGS}


def _create_or_update(client: Any, stack: dict[str, Any]) -> None:
    try:
        client.create_stack(**stack)
    except client.exceptions.AlreadyExistsException:
        with _no_updates_is_fine():
            client.update_stack(**stack)


@contextlib.contextmanager
def _no_updates_is_fine() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if "No updates" not in str(error):
            raise


def _deployed(client: Any, name: str) -> dict[str, str]:
    """The outputs of the stack, once it is there. Raises DeployError when it cannot be made."""
    pause = _FIRST_PAUSE
    while (stack := _describe(client, name))["StackStatus"].endswith("_IN_PROGRESS"):
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    if stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise DeployError(f"the stack {name} is {stack['StackStatus']}: {_reasons(client, name)}")
    return _outputs(stack)


def _reasons(client: Any, name: str) -> str:
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    reasons = [
        f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in events
        if event.get("ResourceStatusReason") and "FAILED" in event["ResourceStatus"]
    ]
    return "; ".join(reasons) or "see its events"


def _describe(client: Any, name: str) -> dict[str, Any]:
    return dict(client.describe_stacks(StackName=name)["Stacks"][0])


def _outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
