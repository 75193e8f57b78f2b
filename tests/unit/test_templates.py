"""What must hold of the templates that are deployed."""

import json
import re
from typing import Any

import pytest
import yaml
from chalice.package import YAMLTemplateSerializer

from chalicelib.domain.errors import Unauthorized
from chalicelib.services import tokens
from deploy.cloudformation import SETTINGS
from deploy.package import completion
from deploy.project import ROOT
from deploy.refusals import ANY, add_refusals

# As long as what tokens are made of, and all that it may have.
RANDOM = "aZ09_-" * 7 + "b"
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


def test_tables_can_be_recovered_but_for_what_is_soon_written_anew() -> None:
    tables = of_type("AWS::DynamoDB::Table")
    without = {name for name, table in tables.items() if not recovers(table)}
    assert without == {"NodesTable", "WishesTable"}


def recovers(table: Any) -> bool:
    specification = table.get("PointInTimeRecoverySpecification", {})
    return bool(specification.get("PointInTimeRecoveryEnabled"))


def test_the_workers_stack_file_takes_what_the_stack_gives() -> None:
    service = yaml.safe_load((ROOT / "worker/stack.yml").read_text())["services"]["worker"]
    assert service["environment"].keys() >= set(SETTINGS)
    assert completion()["Outputs"].keys() >= {name.title().replace("_", "") for name in SETTINGS}


def test_the_workers_service_can_do_no_more_than_it_needs() -> None:
    service = yaml.safe_load((ROOT / "worker/stack.yml").read_text())["services"]["worker"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"].startswith("10001:")
    assert service["deploy"]["update_config"]["parallelism"] == "${UPDATE_PARALLELISM:-1}"


def test_the_workers_image_takes_another_base_and_index() -> None:
    lines = (ROOT / "worker/Dockerfile").read_text().splitlines()
    assert "ARG BASE=python:3.11-slim" in lines
    assert "FROM ${BASE}" in lines or "FROM $BASE" in lines
    assert any(line.startswith("ARG PIP_INDEX_URL") for line in lines)


def test_lines_of_the_access_log_are_json() -> None:
    setting = RESOURCES["RestAPI"]["Properties"]["AccessLogSetting"]["Fn::If"][1]
    assert json.loads(setting["Format"])["ip"] == "$context.identity.sourceIp"


@pytest.mark.parametrize(
    ("header", "passes"),
    [
        (f"Bearer {RANDOM}", False),
        (f"Bearer ajt_{RANDOM}", True),
        (f"bEARER   ajt_{RANDOM} ", True),
        (f"Bearer ajt_{RANDOM[1:]}", False),
        (f"Bearer ajt_{RANDOM}, Bearer x", False),
        ("Bearer", False),
    ],
    # All processes of a test run must see the same names.
    ids=["no mark", "token", "other case", "short", "two", "none"],
)
def test_the_gateway_asks_about_what_looks_like_a_token_alone(header: str, passes: bool) -> None:
    """And about all that the authorizer takes."""
    definitions = RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]["securityDefinitions"]
    authorizer = definitions["authorizer"]["x-amazon-apigateway-authorizer"]
    assert bool(re.search(authorizer["identityValidationExpression"], header)) is passes
    assert bool(tokens._HEADER.fullmatch(header)) is passes


def test_what_is_no_token_gets_an_error_of_ours() -> None:
    body = RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]
    refusal = body["x-amazon-apigateway-gateway-responses"]["UNAUTHORIZED"]
    answer = json.loads(refusal["responseTemplates"]["application/json"])
    with pytest.raises(Unauthorized) as raised:
        tokens.authenticate("")
    assert answer == {"id": raised.value.id, "message": raised.value.message}


@pytest.mark.parametrize("name", ["functions.yaml", "artifacts.yaml"])
def test_each_bucket_wants_tls(name: str) -> None:
    text = (ROOT / ".chalice" / name).read_text()
    resources = YAMLTemplateSerializer().load_template(text)["Resources"]
    policies = [each for each in resources.values() if each.get("Type") == "AWS::S3::BucketPolicy"]
    ((statement,),) = [each["Properties"]["PolicyDocument"]["Statement"] for each in policies]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_who_may_use_a_bucket_may_use_ours_alone() -> None:
    for statement in statements():
        if "s3:" in str(statement["Action"]):
            ours = {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}
            assert statement["Condition"]["StringEquals"] == ours


def test_the_longest_prefix_leaves_room_for_the_buckets_name() -> None:
    (bucket,) = of_type("AWS::S3::Bucket").values()
    region, account = "ap-southeast-2", "1" * 12
    name = bucket["BucketName"]["Fn::Sub"]
    name = name.replace("${AWS::Region}", region).replace("${AWS::AccountId}", account)
    pattern = completion()["Parameters"]["Prefix"]["AllowedPattern"]
    longest = next(length for length in range(64, 0, -1) if re.fullmatch(pattern, "a" * length))
    assert len(name.replace("${Prefix}", "a" * longest)) == 63
    assert re.fullmatch(pattern, f"appjobs-{'a' * 20}"), "deploy takes such a stage"


def test_pages_can_read_what_the_gateway_refuses() -> None:
    body = RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]
    responses = body["x-amazon-apigateway-gateway-responses"]
    for response in responses.values():
        headers = response["responseParameters"]
        assert headers["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
        assert headers["gatewayresponse.header.Cache-Control"] == "'no-store'"
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= responses.keys()


def test_whatever_is_no_route_is_refused_by_the_gateway_in_our_form() -> None:
    document: Any = {"paths": {"/api/jobs": {"get": {}, "post": {}, "head": {}}}}
    add_refusals(document)
    assert document["paths"].keys() == {"/", "/{proxy+}", "/api/jobs"}
    wrong_method = document["paths"]["/api/jobs"][ANY]["x-amazon-apigateway-integration"]
    answer = wrong_method["responses"]["default"]
    assert answer["statusCode"] == "405"
    assert answer["responseParameters"]["method.response.header.Allow"] == "'GET, HEAD, POST'"
    assert json.loads(answer["responseTemplates"]["application/json"])["id"] == "invalid_request"
    for path in ("/", "/{proxy+}"):
        (method,) = document["paths"][path].values()
        answer = method["x-amazon-apigateway-integration"]["responses"]["default"]
        assert answer["statusCode"] == "404"
        assert answer["responseParameters"].keys() == {
            f"method.response.header.{name}" for name in method["responses"]["404"]["headers"]
        }
        assert '"id":"route_not_found"' in answer["responseTemplates"]["application/json"]
        assert "security" not in method


def test_logs_travel_as_bytes_whatever_the_client_accepts() -> None:
    body = RESOURCES["RestAPI"]["Properties"]["DefinitionBody"]
    assert body["x-amazon-apigateway-binary-media-types"] == ["*/*"]
