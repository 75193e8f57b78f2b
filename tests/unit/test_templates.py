"""What must hold of the templates that are deployed."""

from typing import Any

import pytest
import yaml

from dev.cloudformation import SETTINGS
from dev.package import completion
from dev.stack import ROOT

RESOURCES: dict[str, Any] = completion()["Resources"]


def of_type(kind: str) -> dict[str, Any]:
    return {
        name: resource.get("Properties", {})
        for name, resource in RESOURCES.items()
        if resource.get("Type") == kind
    }


def statements() -> list[Any]:
    """Of all policies of roles and of the worker."""
    documents = [policy["PolicyDocument"] for policy in of_type("AWS::IAM::ManagedPolicy").values()]
    for role in of_type("AWS::IAM::Role").values():
        documents += [policy["PolicyDocument"] for policy in role["Policies"]]
    return [statement for document in documents for statement in document["Statement"]]


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: str(statement["Action"]))
def test_no_policy_is_for_everything(statement: Any) -> None:
    assert statement["Resource"] != "*"
    assert "*" not in str(statement["Action"])


def test_data_outlives_the_stack() -> None:
    kept = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key"}
    for resource in RESOURCES.values():
        if resource.get("Type") in kept:
            assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"


def test_tables_can_be_recovered_but_for_what_workers_write_anew() -> None:
    tables = of_type("AWS::DynamoDB::Table")
    without = {name for name, table in tables.items() if not recovers(table)}
    assert without == {"NodesTable"}


def recovers(table: Any) -> bool:
    specification = table.get("PointInTimeRecoverySpecification", {})
    return bool(specification.get("PointInTimeRecoveryEnabled"))


def test_the_workers_stack_file_takes_what_the_stack_gives() -> None:
    service = yaml.safe_load((ROOT / "worker/stack.yml").read_text())["services"]["worker"]
    assert service["environment"].keys() >= set(SETTINGS)
    assert completion()["Outputs"].keys() >= {name.title().replace("_", "") for name in SETTINGS}


def test_pages_can_read_what_the_gateway_refuses() -> None:
    body = RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]
    responses = body["x-amazon-apigateway-gateway-responses"]
    allowed = {"gatewayresponse.header.Access-Control-Allow-Origin": "'*'"}
    for kind in ("DEFAULT_4XX", "DEFAULT_5XX"):
        assert responses[kind]["responseParameters"] == allowed
