"""What `make deploy` asks of CloudFormation, if no AWS here would show it."""

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from deploy.cloudformation import DeployError, deploy_stack
from tests.support.clock import Clock

NAME = "appjobs-prod"
STACK_ID = f"arn:aws:cloudformation:us-east-1:000000000000:stack/{NAME}/1"


@pytest.fixture
def client() -> Any:
    return boto3.client("cloudformation", region_name="us-east-1")


def described(status: str) -> dict[str, Any]:
    stack = {"StackName": NAME, "StackId": STACK_ID, "StackStatus": status, "CreationTime": 0}
    return {"Stacks": [stack]}


def test_a_stack_that_never_gets_ready_is_waited_for_an_hour(client: Any, clock: Clock) -> None:
    began = clock.now
    with Stubber(client) as stub:
        stub.add_client_error("describe_stacks", "ValidationError", f"{NAME} does not exist")
        stub.add_response("create_stack", {"StackId": STACK_ID})
        for _look in range(1000):
            stub.add_response("describe_stacks", described("CREATE_IN_PROGRESS"))
        with pytest.raises(DeployError, match="still CREATE_IN_PROGRESS after 60 minutes"):
            deploy_stack(client, {"StackName": NAME, "TemplateBody": "{}"})
    assert 3600 < clock.now - began < 3610


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("DELETE_FAILED", "delete it once more"),
        ("ROLLBACK_FAILED", "delete the stack"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
    ],
)
def test_a_stack_that_is_stuck_is_named_with_what_to_do(
    client: Any, status: str, advice: str
) -> None:
    with Stubber(client) as stub:
        stub.add_response("describe_stacks", described(status))
        with pytest.raises(DeployError, match=f"{status}: .*{advice}"):
            deploy_stack(client, {"StackName": NAME, "TemplateBody": "{}"})
