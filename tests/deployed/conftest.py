"""The API as it is deployed: MiniStack's gateway and Lambdas, each with the rights of its own role.

MiniStack refuses what no policy allows, and records who called what.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.cloudformation import settings_of
from deploy.deploy import deploy
from deploy.package import RUNTIME
from deploy.project import LOCAL, ROOT
from deploy.refusals import ANY, PATH
from dev.addresses import free_port
from dev.aws import Aws
from dev.ministack import start_ministack
from dev.swarm import Swarm
from dev.tokens import bearer
from tests.contract.backstage import Backstage
from tests.contract.client import Api, Json
from tests.support.local_api import ALLOWED_ORIGIN, admin_token

PREFIX = "appjobs-test"
# By their names in the template; what their calls are recorded under.
FUNCTIONS = ("APIHandler", "Authorizer", "Upkeep", "DeadLetters", "Closing")
WORKER = "worker"
# Actions of SQS that cover their batches too.
BATCHED = ("sqs:SendMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage")
HERE = Path(__file__).parent


def _has(python: str) -> bool:
    """A name on the path may be a version manager's, with nothing behind it."""
    with contextlib.suppress(OSError):
        return subprocess.run([python, "-V"], capture_output=True).returncode == 0
    return False


# MiniStack runs Lambdas with its own interpreter: Lambda's, or ours if that one is not here.
LAMBDA_BASE = f"python{RUNTIME}" if _has(f"python{RUNTIME}") else sys.executable
LAMBDA_PYTHON = RUNTIME if sys.executable != LAMBDA_BASE else "{}.{}".format(*sys.version_info)


def pytest_report_header() -> str:
    """Says which Python was tried."""
    return f"deployed functions run on Python {LAMBDA_PYTHON}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder (the hook gets the tests of all folders)."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.deployed)
            # A run of all contract tests is one test here.
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Deployed:
    """A deployed stack, and how to reach it."""

    aws: Aws
    outputs: dict[str, str]

    @cached_property
    def api(self) -> Api:
        """The API to an administrator, behind the gateway, which knows it by the host's name."""
        return Api(self.url, {"Host": self.host, **bearer(admin_token(self.environment))})

    @property
    def url(self) -> str:
        return f"{self.aws.endpoint}/v1"

    @property
    def host(self) -> str:
        port = self.aws.endpoint.rpartition(":")[2]
        return f"{self.outputs['RestAPIId']}.execute-api.localhost:{port}"

    @property
    def environment(self) -> dict[str, str]:
        """What `make settings` prints, and the rights of the account's owner."""
        return {**self.aws.environment, **settings_of(self.outputs)}

    @cached_property
    def key(self) -> str:
        """The id of the key of the secrets."""
        return self.physical("Key")

    @property
    def backstage(self) -> Backstage:
        return Backstage(self.aws.endpoint, self.environment)

    def client(self, service: str) -> Any:
        """A client with the rights of the account's owner."""
        return self.aws.client(service)

    def send(
        self, service: str, method: str, path: str, headers: dict[str, str], body: Json
    ) -> Json:
        """What AWS answers to a call that boto3 would write in another way."""
        request = AWSRequest(
            method, f"{self.aws.endpoint}{path}", headers, json.dumps(body).encode()
        )
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        keys = Credentials(*(self.aws.environment[name] for name in names))
        SigV4Auth(keys, service, "us-east-1").add_auth(request)
        answer = requests.request(
            method, request.url, data=request.data, headers=dict(request.headers), timeout=60
        )
        return dict(answer.json())

    def physical(self, name: str) -> str:
        """The id of one of the stack's resources."""
        detail = self.client("cloudformation").describe_stack_resource(
            StackName=PREFIX, LogicalResourceId=name
        )
        return str(detail["StackResourceDetail"]["PhysicalResourceId"])


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The stack, deployed as `make deploy` does it, on its own AWS."""
    aws = start_ministack(
        tmp_path_factory.mktemp("deployed") / "aws",
        free_port(),
        base=LAMBDA_BASE,
        CLOUDTRAIL_RECORDING="1",
        CLOUDTRAIL_MAX_EVENTS="1000000",
    )
    try:
        deployed = Deployed(aws, _deploy(aws))
        _complete_the_import(deployed)
        _loosen_for_ministack(deployed)
        _name_callers(deployed)
        yield deployed
    finally:
        aws.stop()


def _deploy(aws: Aws) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        parameters = {
            "CorsOrigins": ALLOWED_ORIGIN,
            "MakeWorkerUser": "true",
            # For the search for secrets in what the functions log.
            "LogLevel": "debug",
            # The contract tests send more than people do.
            "ThrottleRate": "1000",
            "ThrottleBurst": "1000",
        }
        return deploy(boto3.Session(), PREFIX, parameters, LAMBDA_PYTHON)


def _complete_the_import(deployed: Deployed) -> None:
    """Gives MiniStack's gateway what its CloudFormation leaves out of the API's document.

    That is binary types, methods that match all, and what a mock integration answers.
    """
    template = json.loads((LOCAL / "package" / PREFIX / "sam.json").read_text())
    document = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    gateway = deployed.client("apigateway")
    api: Json = {"restApiId": deployed.outputs["RestAPIId"]}
    _set_binary_types(deployed, document["x-amazon-apigateway-binary-media-types"])
    resources = gateway.get_resources(**api, limit=500)["items"]
    ids = {resource["path"]: resource["id"] for resource in resources}
    for path, methods in document["paths"].items():
        if ANY in methods:
            _add_mock(gateway, {**api, "resourceId": ids[path], "httpMethod": "ANY"}, methods[ANY])


def _set_binary_types(deployed: Deployed, types: list[str]) -> None:
    """MiniStack takes no `~1` for a slash, so it gets the list as a whole, which boto3 would not send."""
    change = {"op": "replace", "path": "/binaryMediaTypes", "value": types}
    path = f"/restapis/{deployed.outputs['RestAPIId']}"
    kind = {"Content-Type": "application/json"}
    answer = deployed.send("apigateway", "PATCH", path, kind, {"patchOperations": [change]})
    assert answer["binaryMediaTypes"] == types


def _add_mock(gateway: Any, method: Json, described: Json) -> None:
    integration = described["x-amazon-apigateway-integration"]
    (answer,) = integration["responses"].values()
    status = answer["statusCode"]
    # MiniStack does not fill in templates.
    templates = {
        kind: text.replace(PATH, "the path") for kind, text in answer["responseTemplates"].items()
    }
    gateway.put_method(**method, authorizationType="NONE")
    gateway.put_method_response(
        **method,
        statusCode=status,
        responseParameters=dict.fromkeys(answer["responseParameters"], False),
    )
    gateway.put_integration(
        **method,
        type="MOCK",
        passthroughBehavior=integration["passthroughBehavior"].upper(),
        contentHandling=integration["contentHandling"],
        requestTemplates=integration["requestTemplates"],
    )
    gateway.put_integration_response(**method, **{**answer, "responseTemplates": templates})


def _loosen_for_ministack(deployed: Deployed) -> None:
    """Allows what MiniStack checks in another way than AWS.

    It knows no encryption contexts, takes an alias of a key for a resource of its own, has actions
    for the batches of SQS, and speaks no TLS.
    """
    deployed.client("s3").delete_bucket_policy(Bucket=deployed.outputs["LogBucket"])
    iam = deployed.client("iam")
    for role in map(deployed.physical, ("ApiRole", "UpkeepRole")):
        (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        inline = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=_loosened(inline))
    policy = deployed.outputs["WorkerPolicyArn"]
    version = iam.get_policy_version(PolicyArn=policy, VersionId="v1")["PolicyVersion"]
    iam.create_policy_version(
        PolicyArn=policy, PolicyDocument=_loosened(version["Document"]), SetAsDefault=True
    )


def _loosened(document: Json) -> str:
    for statement in document["Statement"]:
        actions = as_list(statement["Action"])
        statement["Action"] = [
            *actions,
            *(f"{action}Batch" for action in actions if action in BATCHED),
        ]
        if "Null" in statement.get("Condition", {}):
            del statement["Condition"]["Null"]
            key = statement["Resource"]
            statement["Resource"] = [key, f"{key.partition(':key/')[0]}:alias/{PREFIX}"]
    return json.dumps(document)


def as_list(value: str | list[str]) -> list[str]:
    """What a policy has in place of a list of one."""
    return [value] if isinstance(value, str) else value


def _name_callers(deployed: Deployed) -> None:
    """Has each function say its name with every call."""
    functions = deployed.client("lambda")
    for name in FUNCTIONS:
        function = deployed.physical(name)
        settings = functions.get_function_configuration(FunctionName=function)["Environment"]
        variables = {**settings["Variables"], "AWS_SDK_UA_APP_ID": name}
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}
        )


@pytest.fixture(scope="session")
def contract_run(deployed: Deployed) -> subprocess.CompletedProcess[str]:
    """The contract tests, run against the deployed API."""
    # They leave many executions open: upkeep would be busy with them all the time.
    deployed.client("events").disable_rule(Name=deployed.physical("UpkeepUpkeepEvent"))
    environment = {
        **os.environ,
        **deployed.environment,
        "APPJOBS_API_URL": deployed.url,
        "APPJOBS_API_HOST": deployed.host,
        "CORS_ORIGINS": ALLOWED_ORIGIN,
        # Requests at the same time start a Lambda each, which takes a second of a processor.
        "APPJOBS_TEST_THREADS": "8",
    }
    options = ["-q", "-p", "no:cacheprovider", "--timeout=600"]
    command = [sys.executable, "-m", "pytest", *options, "tests/contract"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A swarm of one node with one container."""
    with Swarm(tmp_path_factory.mktemp("swarm") / "swarm", nodes=1, tasks=1) as swarm:
        yield swarm


@pytest.fixture(scope="session")
def start_worker(
    deployed: Deployed,
    swarm: Swarm,
    worker_key: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a worker of the node, with what the stack gives it and no more; ended after all tests."""
    directory = tmp_path_factory.mktemp("worker")
    environment = {
        **os.environ,
        **deployed.environment,
        **worker_key,
        "AWS_SDK_UA_APP_ID": WORKER,
        "DOCKER_HOSTS": swarm.manager.docker_host,
        "POLL_SECONDS": "1",
        "HEALTH_PORT": str(free_port()),
        "SPOOL_DIR": str(directory / "spool"),
    }
    workers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "worker"]
        with (directory / "log").open("ab") as log:
            workers.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            )
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.fixture(scope="session")
def worker_key(deployed: Deployed) -> dict[str, str]:
    """The credentials of a worker, as variables."""
    user = deployed.outputs["WorkerUserName"]
    key = deployed.client("iam").create_access_key(UserName=user)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
