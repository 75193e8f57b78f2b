"""`make deploy STAGE=…`: the API, what it runs on and what it keeps, as one CloudFormation stack.

AWS is where botocore finds it: the profile, the region, `AWS_ENDPOINT_URL`.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deploy import queues
from deploy.cloudformation import DeployError, deploy_stack, find_stack, settings_of, stack_outputs
from deploy.package import RUNTIME, Package, package
from deploy.project import LOCAL, ROOT

_ARTIFACTS = ROOT / ".chalice" / "artifacts.yaml"
# The template makes roles and users, and SAM transforms it.
_CAPABILITIES = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
_WHO_MAY_CALL = ("AllowedCidrs", "VpcEndpointId")


def deploy(
    session: Any, prefix: str, given: dict[str, str], python: str = RUNTIME
) -> dict[str, str]:
    """Packages and deploys the stack `prefix`; returns its outputs. Raises DeployError.

    `given` are parameters of the template; others stay as they were. `python` is Lambda's.
    """
    built = package(prefix, LOCAL / "package" / prefix, session.region_name, python)
    print(f"· the package has {built.code.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    cloudformation = session.client("cloudformation")
    artifacts = {
        "StackName": "appjobs-artifacts",
        "TemplateBody": _ARTIFACTS.read_text(encoding="utf-8"),
    }
    bucket = deploy_stack(cloudformation, artifacts)["Bucket"]
    known = _known_parameters(cloudformation, prefix)
    _note_callers(built.template, {**known, **given})
    url = _upload(session.client("s3"), bucket, built)
    print(f"· deploying {prefix}, which may take some minutes", file=sys.stderr)
    stack = {
        "StackName": prefix,
        "TemplateURL": url,
        "Capabilities": _CAPABILITIES,
        "Parameters": _parameters(built.template, prefix, given, known),
    }
    outputs = deploy_stack(cloudformation, stack)
    protect(session, prefix)
    queues.bring_up_to_date(session.client("sqs"), outputs)
    return outputs


def protect(session: Any, name: str) -> None:
    """Protects a stack and its tables against deletion.

    Not in the template: a table that is protected from its first moment on outlives a creation that is
    undone.
    """
    cloudformation, dynamodb = session.client("cloudformation"), session.client("dynamodb")
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    for resource in (each for page in pages for each in page["StackResourceSummaries"]):
        if resource["ResourceType"] == "AWS::DynamoDB::Table":
            table = resource["PhysicalResourceId"]
            known = dynamodb.describe_table(TableName=table)["Table"]
            if not known.get("DeletionProtectionEnabled"):
                dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=True)


def _upload(s3: Any, bucket: str, built: Package) -> str:
    """Stores code and template under their hashes, so that what did not change is not an update.

    Returns the template's URL.
    """
    place = {"Bucket": bucket, "Key": _put(s3, bucket, built.code.read_bytes(), "zip")}
    for resource in built.template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = place
    key = _put(s3, bucket, json.dumps(built.template).encode(), "json")
    return f"{s3.meta.endpoint_url}/{bucket}/{key}"


def _put(s3: Any, bucket: str, content: bytes, kind: str) -> str:
    key = f"{hashlib.sha256(content).hexdigest()}.{kind}"
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    return key


def _note_callers(template: dict[str, Any], values: Mapping[str, str]) -> None:
    """Says in the API's document who may call it.

    The gateway follows the former policy until its stage is deployed again. SAM deploys it again if this
    document differs, and the document does not have the values of parameters.
    """
    noted = ", ".join(f"{name}={values.get(name, '')}" for name in _WHO_MAY_CALL)
    template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["info"]["description"] = noted


def _parameters(
    template: dict[str, Any], prefix: str, given: Mapping[str, str], known: Mapping[str, str]
) -> list[dict[str, str]]:
    kept = {name: value for name, value in known.items() if name in template["Parameters"]}
    values = {**kept, "Prefix": prefix, **given}
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]


def _known_parameters(cloudformation: Any, name: str) -> dict[str, str]:
    """The parameters of the stack of that name, if there is one."""
    stack = find_stack(cloudformation, name) or {}
    return {
        parameter["ParameterKey"]: parameter["ParameterValue"]
        for parameter in stack.get("Parameters", [])
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.deploy", description=__doc__)
    parser.add_argument("--settings", action="store_true", help="only print what a worker needs")
    add_stage(parser)
    return parser.parse_args()


def add_stage(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is deployed."""
    parser.add_argument("stage", type=_stage)
    parser.add_argument("parameters", nargs="*", type=_parameter, metavar="Parameter=value")


def _stage(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", text):
        raise argparse.ArgumentTypeError(
            "a stage has up to 20 characters: a-z, 0-9 and -, and does not begin with -"
        )
    if "-node" in text:
        # The policy of the workers of a stage x has all queues whose names begin with appjobs-x-node-. It
        # must not have those of another stage.
        raise argparse.ArgumentTypeError("the name of a stage must not contain -node")
    return text


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form Parameter=value")
    return name, value


def main() -> int:
    """Deploys a stage, or only reads it. Prints the worker's environment, one NAME=value a line."""
    arguments = _arguments()
    prefix = f"appjobs-{arguments.stage}"
    session = boto3.Session()
    if session.region_name is None:
        return _fail("no region: set AWS_DEFAULT_REGION or AWS_PROFILE")
    try:
        if arguments.settings:
            outputs = stack_outputs(session.client("cloudformation"), prefix)
        else:
            outputs = deploy(session, prefix, dict(arguments.parameters))
            print(_summary(outputs), file=sys.stderr)
    except (DeployError, ClientError, BotoCoreError) as error:
        return _fail(_with_hint(str(error), arguments.stage))
    print("\n".join(f"{name}={value}" for name, value in settings_of(outputs).items()))
    return 0


def _summary(outputs: dict[str, str]) -> str:
    return f"""
The API: {outputs["EndpointURL"]}api/jobs
Policy of the workers: {outputs["WorkerPolicyArn"]}
Settings of the workers:
"""


def _with_hint(reason: str, stage: str) -> str:
    if "already exists" not in reason:
        return reason
    return f"{reason}\nIf that is data of a former stack of this name: make reclaim STAGE={stage}"


def _fail(reason: str) -> int:
    print(f"deploy: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
