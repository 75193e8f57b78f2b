"""A stack's life on its own AWS: a failed creation, updates, deletion, and back again."""

import copy
import functools
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from deploy.cloudformation import DeployError, deploy_stack, import_stack
from deploy.deploy import deploy
from deploy.package import RUNTIME, Package, completion, package
from deploy.project import LOCAL
from deploy.reclaim import reclaim
from dev.addresses import free_port
from dev.aws import Aws
from dev.ministack import start_ministack
from tests.contract.client import Json
from tests.deployed.conftest import LAMBDA_BASE, LAMBDA_PYTHON
from tests.support.waiting import eventually

PREFIX = "appjobs-life"
# It has the workers' policy, so it is made after tables, bucket and key: another user of that name makes
# the creation fail then.
USER = f"{PREFIX}-worker-us-east-1"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[boto3.Session]:
    """What finds an AWS that nothing else uses."""
    aws: Aws = start_ministack(
        tmp_path_factory.mktemp("life") / "aws", free_port(), base=LAMBDA_BASE
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        patch.setattr("deploy.deploy.package", packaged_once)
        yield boto3.Session()
    aws.stop()


def packaged_once(*arguments: Any) -> Package:
    """The package: the same for each deployment here, which changes the template."""
    built = _package(*arguments)
    return Package(copy.deepcopy(built.template), built.code)


_package = functools.cache(package)


def deployed(session: boto3.Session, **parameters: str) -> dict[str, str]:
    with redirect_stderr(io.StringIO()):
        return deploy(session, PREFIX, parameters, LAMBDA_PYTHON)


def stack(session: boto3.Session, name: str = PREFIX) -> Json:
    return dict(session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0])


def tables(session: boto3.Session) -> set[str]:
    return set(session.client("dynamodb").list_tables()["TableNames"])


def buckets(session: boto3.Session) -> set[str]:
    listed = session.client("s3").list_buckets()["Buckets"]
    return {bucket["Name"] for bucket in listed if bucket["Name"].startswith(PREFIX)}


def keys(session: boto3.Session) -> list[str]:
    """The keys that still open something."""
    kms = session.client("kms")
    known = [kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in kms.list_keys()["Keys"]]
    return [
        key["KeyId"]
        for key in known
        if key["KeyState"] == "Enabled" and key["Description"].startswith(PREFIX)
    ]


def test_the_package_is_for_lambdas_python_whoever_makes_it() -> None:
    built = package(PREFIX, LOCAL / "package" / "for-lambda", "us-east-1")
    runtimes = {
        resource["Properties"]["Runtime"]
        for resource in built.template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    assert runtimes == {f"python{RUNTIME}"}
    names = zipfile.ZipFile(built.code).namelist()
    compiled = {name for name in names if name.endswith(".so")}
    wanted = f".cpython-{RUNTIME.replace('.', '')}-x86_64-linux-gnu.so"
    assert compiled
    assert all(name.endswith(wanted) for name in compiled), compiled
    assert {"app.py", "chalicelib/config.py", "chalice/app.py", "boto3/__init__.py"} <= set(names)


def test_a_first_creation_that_fails_leaves_nothing(session: boto3.Session) -> None:
    iam = session.client("iam")
    iam.create_user(UserName=USER)
    with pytest.raises(DeployError, match="nothing of it is left: WorkerUser") as failure:
        deployed(session, MakeWorkerUser="true")
    made = events(session)
    assert ("JobsTable", "CREATE_COMPLETE") in made, (
        f"it failed too early to show anything: {failure.value}"
    )
    assert ("LogBucket", "CREATE_COMPLETE") in made
    assert ("Key", "CREATE_COMPLETE") in made
    assert (tables(session), buckets(session), keys(session)) == (set(), set(), [])
    with pytest.raises(ClientError, match="does not exist"):
        stack(session)
    iam.delete_user(UserName=USER)


def events(session: boto3.Session) -> set[tuple[str, str]]:
    """What happened to the resources of the stack that is gone."""
    client = session.client("cloudformation")
    (gone,) = (
        each["StackId"]
        for each in client.list_stacks()["StackSummaries"]
        if each["StackName"] == PREFIX
    )
    return {
        (event["LogicalResourceId"], event["ResourceStatus"])
        for page in client.get_paginator("describe_stack_events").paginate(StackName=gone)
        for event in page["StackEvents"]
    }


def test_then_it_is_deployed_and_protected(session: boto3.Session) -> None:
    outputs = deployed(session)
    assert outputs["EndpointURL"]
    assert stack(session)["EnableTerminationProtection"]
    dynamodb = session.client("dynamodb")
    protected = {
        name
        for name in tables(session)
        if dynamodb.describe_table(TableName=name)["Table"]["DeletionProtectionEnabled"]
    }
    assert protected == tables(session)
    assert f"{PREFIX}-tokens" in protected
    with pytest.raises(ClientError, match="TerminationProtection"):
        session.client("cloudformation").delete_stack(StackName=PREFIX)


def test_once_more_changes_nothing(session: boto3.Session) -> None:
    before = stack(session)
    assert deployed(session)["LogBucket"] in buckets(session)
    assert stack(session) == before


def test_what_is_no_token_runs_no_function(session: boto3.Session) -> None:
    url, host = gateway(session)
    junk = [
        "",
        "Bearer",
        "Bearer x",
        f"Bearer ajt_{'x' * 42}",
        f"Basic ajt_{'x' * 43}",
        "ajt_" + "x" * 43,
    ]
    for header in junk:
        answer = requests.get(url, headers={"Host": host, "Authorization": header}, timeout=30)
        assert answer.status_code == 401, header
        # MiniStack has no gateway responses of a document: on AWS it would be our body.
        assert answer.json() == {"message": "Unauthorized"}
    assert logged(session, "authorizer") == logged(session, "api") == 0
    for scheme in ("Bearer", "bearer ", "BEARER"):
        unknown = {"Host": host, "Authorization": f"{scheme} ajt_{'x' * 43}"}
        assert requests.get(url, headers=unknown, timeout=30).status_code == 403
    assert logged(session, "authorizer") > 0
    assert logged(session, "api") == 0


def gateway(session: boto3.Session) -> tuple[str, str]:
    """The address of the API, and the name that the gateway knows it by."""
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack(session)["Outputs"]}
    endpoint = session.client("s3").meta.endpoint_url
    port = endpoint.rpartition(":")[2]
    return f"{endpoint}/v1/api/jobs", f"{outputs['RestAPIId']}.execute-api.localhost:{port}"


def logged(session: boto3.Session, function: str) -> int:
    """How often a function logged anything."""
    group = f"/appjobs/{PREFIX}/{function}"
    return len(session.client("logs").filter_log_events(logGroupName=group)["events"])


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"AllowedCidrs": "10.0.0.0/8,192.0.2.1/32"}, 403),
        ({"AllowedCidrs": "10.0.0.0/8,127.0.0.0/8"}, 200),
        ({"VpcEndpointId": "vpce-0123456789abcdef0"}, 403),
        ({}, 200),
    ],
    ids=["others", "us", "private", "anybody"],
)
def test_who_may_call_is_a_parameter(
    session: boto3.Session, parameters: dict[str, str], status: int
) -> None:
    """MiniStack ignores the policy of a document: here ours becomes one of the resource."""
    ours = completion()
    document = ours["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    api = {"Ref": "Api"}
    mock = {"Type": "MOCK", "RequestTemplates": {"application/json": '{"statusCode": 200}'}}
    resources = {
        "Api": {
            "Type": "AWS::ApiGateway::RestApi",
            "Properties": {"Name": "bounded", "Policy": document["x-amazon-apigateway-policy"]},
        },
        "Method": {
            "Type": "AWS::ApiGateway::Method",
            "Properties": {
                "RestApiId": api,
                "ResourceId": {"Fn::GetAtt": ["Api", "RootResourceId"]},
                "HttpMethod": "GET",
                "AuthorizationType": "NONE",
                "Integration": {**mock, "IntegrationResponses": [{"StatusCode": "200"}]},
                "MethodResponses": [{"StatusCode": "200"}],
            },
        },
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": "Method",
            "Properties": {"RestApiId": api, "StageName": "v1"},
        },
    }
    template = {
        "Parameters": ours["Parameters"],
        "Conditions": ours["Conditions"],
        "Resources": resources,
        "Outputs": {"Id": {"Value": api}},
    }
    stack = {
        "StackName": f"bounded-{'-'.join(parameters) or 'by-nothing'}-{status}",
        "TemplateBody": json.dumps(template),
        "Parameters": parameters_of(parameters),
    }
    outputs = deploy_stack(session.client("cloudformation"), stack)
    endpoint = session.client("s3").meta.endpoint_url
    host = f"{outputs['Id']}.execute-api.localhost:{endpoint.rpartition(':')[2]}"
    assert requests.get(f"{endpoint}/v1/", headers={"Host": host}, timeout=30).status_code == status


def parameters_of(given: dict[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]


def test_a_change_of_who_may_call_deploys_the_stage_anew(session: boto3.Session) -> None:
    """Amazon's gateway would go by the former policy until then."""
    before = current_deployment(session)
    deployed(session, ThrottleRate="49")
    assert current_deployment(session) == before
    deployed(session, AllowedCidrs="127.0.0.0/8")
    assert current_deployment(session) != before
    deployed(session, AllowedCidrs="")


def current_deployment(session: boto3.Session) -> str:
    stage = {"restApiId": api_id(session), "stageName": "v1"}
    return str(session.client("apigateway").get_stage(**stage)["deploymentId"])


def api_id(session: boto3.Session) -> str:
    detail = session.client("cloudformation").describe_stack_resource(
        StackName=PREFIX, LogicalResourceId="RestAPI"
    )
    return str(detail["StackResourceDetail"]["PhysicalResourceId"])


def test_too_many_requests_are_refused(session: boto3.Session) -> None:
    deployed(session, ThrottleRate="1", ThrottleBurst="2")
    url, host = gateway(session)
    answers = [requests.options(url, headers={"Host": host}, timeout=30) for _each in range(9)]
    assert 429 in {answer.status_code for answer in answers}
    deployed(session, ThrottleRate="50", ThrottleBurst="100")


def test_access_logs_are_an_option(session: boto3.Session) -> None:
    """That the stage writes them there, MiniStack does not show: it knows no access logs."""
    group = f"/appjobs/{PREFIX}/access"
    assert group not in log_groups(session)
    deployed(session, AccessLogs="true")
    assert group in log_groups(session)
    deployed(session, AccessLogs="false")
    assert group not in log_groups(session)


def log_groups(session: boto3.Session) -> set[str]:
    groups = session.client("logs").describe_log_groups(logGroupNamePrefix="/appjobs/")["logGroups"]
    return {group["logGroupName"] for group in groups}


def test_buckets_want_tls(session: boto3.Session) -> None:
    """MiniStack has none: with the policy nobody but the account's owner gets in, without it they do."""
    iam, s3 = session.client("iam"), session.client("s3")
    iam.create_user(UserName="reader")
    may_read = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [may_read]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=document)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    reader = boto3.client(
        "s3",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    for bucket in (
        *buckets(session),
        stack(session, "appjobs-artifacts")["Outputs"][0]["OutputValue"],
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            reader.list_objects_v2(Bucket=bucket)
        policy = s3.get_bucket_policy(Bucket=bucket)["Policy"]
        s3.delete_bucket_policy(Bucket=bucket)
        reader.list_objects_v2(Bucket=bucket)
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)


def test_after_an_update_that_was_undone_the_former_state_can_be_deployed(
    session: boto3.Session,
) -> None:
    iam = session.client("iam")
    iam.create_user(UserName=USER)
    with pytest.raises(DeployError, match="UPDATE_ROLLBACK_COMPLETE: WorkerUser"):
        deployed(session, MakeWorkerUser="true")
    assert deployed(session, MakeWorkerUser="false")["EndpointURL"]
    assert stack(session)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    iam.delete_user(UserName=USER)
    assert deployed(session, MakeWorkerUser="true")["WorkerUserName"] == USER
    deployed(session, MakeWorkerUser="false")


def test_what_a_deleted_stack_leaves_can_be_taken_back(session: boto3.Session) -> None:
    dynamodb, kms = session.client("dynamodb"), session.client("kms")
    item = {"JobId": {"S": "kept"}}
    dynamodb.put_item(TableName=f"{PREFIX}-jobs", Item=item)
    sealed = kms.encrypt(KeyId=f"alias/{PREFIX}", Plaintext=b"secret")["CiphertextBlob"]
    before = tables(session), buckets(session), keys(session)

    cloudformation = session.client("cloudformation")
    cloudformation.update_termination_protection(
        StackName=PREFIX, EnableTerminationProtection=False
    )
    gone = stack(session)["StackId"]
    cloudformation.delete_stack(StackName=PREFIX)
    eventually(lambda: is_deleted(session, gone), 60)
    assert (tables(session), buckets(session), keys(session)) == before

    with pytest.raises(DeployError, match="already exists"):
        deployed(session)
    assert (tables(session), buckets(session), keys(session)) == before, (
        "the data must survive that"
    )

    assert f"{PREFIX}-jobs" in reclaim(session, PREFIX, {})
    deployed(session)
    assert (tables(session), buckets(session), keys(session)) == before
    assert dynamodb.get_item(TableName=f"{PREFIX}-jobs", Key=item)["Item"] == item
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"
    assert kms.describe_key(KeyId=f"alias/{PREFIX}")["KeyMetadata"]["KeyId"] == before[2][0]


def is_deleted(session: boto3.Session, stack_id: str) -> None:
    assert stack(session, stack_id)["StackStatus"] == "DELETE_COMPLETE"


# --- stacks that are in the way ------------------------------------------------------------------
QUEUE: Json = {"Type": "AWS::SQS::Queue"}
TAKEN: Json = {"Type": "AWS::IAM::User", "Properties": {"UserName": USER}, "DependsOn": "Queue"}


def template(**resources: Json) -> str:
    return json.dumps({"Resources": resources})


def failed_once(session: boto3.Session, name: str, queue: Json) -> None:
    """Leaves a stack behind whose creation was undone, as without our settings."""
    client, iam = session.client("cloudformation"), session.client("iam")
    iam.create_user(UserName=USER)
    client.create_stack(
        StackName=name,
        TemplateBody=template(Queue=queue, User=TAKEN),
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    eventually(lambda: has_status(session, name, "ROLLBACK_COMPLETE"), 60)
    iam.delete_user(UserName=USER)


def has_status(session: boto3.Session, name: str, status: str) -> None:
    assert stack(session, name)["StackStatus"] == status


def test_a_stack_that_was_undone_and_holds_nothing_is_replaced(session: boto3.Session) -> None:
    failed_once(session, "empty", QUEUE)
    before = stack(session, "empty")["StackId"]
    wanted = {"StackName": "empty", "TemplateBody": template(Queue=QUEUE)}
    deploy_stack(session.client("cloudformation"), wanted)
    has_status(session, "empty", "CREATE_COMPLETE")
    assert stack(session, "empty")["StackId"] != before


def test_a_stack_that_was_undone_and_holds_something_is_left_alone(session: boto3.Session) -> None:
    failed_once(session, "full", {**QUEUE, "DeletionPolicy": "Retain"})
    wanted = {"StackName": "full", "TemplateBody": template(Queue=QUEUE)}
    with pytest.raises(DeployError, match=r"left this behind: AWS::SQS::Queue .*full-Queue"):
        deploy_stack(session.client("cloudformation"), wanted)
    has_status(session, "full", "ROLLBACK_COMPLETE")


def test_parameters_of_a_creation_that_was_undone_are_kept(session: boto3.Session) -> None:
    client, iam = session.client("cloudformation"), session.client("iam")
    iam.create_user(UserName=USER)
    days = {"RetentionDays": {"Type": "Number", "Default": 60}}
    resources = {"Queue": QUEUE, "User": TAKEN}
    client.create_stack(
        StackName="appjobs-again",
        TemplateBody=json.dumps({"Parameters": days, "Resources": resources}),
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    eventually(lambda: has_status(session, "appjobs-again", "ROLLBACK_COMPLETE"), 60)
    iam.delete_user(UserName=USER)
    with redirect_stderr(io.StringIO()):
        outputs = deploy(session, "appjobs-again", {"DeliveryDeadline": "60"}, LAMBDA_PYTHON)
    assert (outputs["RetentionDays"], outputs["DeliveryDeadline"]) == ("60", "60")


def test_a_change_set_that_waits_is_not_waited_for(session: boto3.Session) -> None:
    client = session.client("cloudformation")
    wanted = {"StackName": "reviewed", "TemplateBody": template(Queue=QUEUE)}
    client.create_change_set(**wanted, ChangeSetName="first", ChangeSetType="CREATE")
    with pytest.raises(DeployError, match="REVIEW_IN_PROGRESS: a change set"):
        deploy_stack(client, wanted)


def test_an_import_that_is_refused_leaves_no_stack(session: boto3.Session) -> None:
    kept = {**QUEUE, "DeletionPolicy": "Retain"}
    nowhere = {
        "ResourceType": "AWS::SQS::Queue",
        "LogicalResourceId": "Queue",
        "ResourceIdentifier": {"QueueUrl": "http://sqs.us-east-1.localhost/000000000000/none"},
    }
    wanted = {"StackName": "imported", "TemplateBody": template(Queue=kept)}
    for _twice in range(2):
        with pytest.raises(DeployError, match="refuses to import"):
            import_stack(session.client("cloudformation"), wanted, [nowhere])
