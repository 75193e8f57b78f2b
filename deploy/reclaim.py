"""`make reclaim STAGE=…`: a new stack for the data that a deleted one left; `make deploy` makes the rest.

Give the parameters of the former stack (`RetentionDays=60`) again: an import changes nothing.
"""

import argparse
import json
import sys
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from chalice.package import YAMLTemplateSerializer

from deploy.cloudformation import DeployError, import_stack
from deploy.deploy import add_stage
from deploy.project import TEMPLATE


def reclaim(session: Any, prefix: str, given: dict[str, str]) -> list[str]:
    """Makes the stack `prefix` from what is left of it; returns what that is. Raises DeployError."""
    template = YAMLTemplateSerializer().load_template(TEMPLATE.read_text(encoding="utf-8"))
    # An import accepts no outputs, and nothing that does not exist yet.
    del template["Outputs"]
    found = _found(session, prefix, template["Resources"])
    template["Resources"] = {
        each["LogicalResourceId"]: template["Resources"][each["LogicalResourceId"]]
        for each in found
    }
    stack = {
        "StackName": prefix,
        "TemplateBody": json.dumps(template),
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in {"Prefix": prefix, **given}.items()
        ],
    }
    import_stack(session.client("cloudformation"), stack, found)
    return [next(iter(each["ResourceIdentifier"].values())) for each in found]


def _found(session: Any, prefix: str, resources: dict[str, Any]) -> list[dict[str, Any]]:
    """Which of a template's resources exist, as an import names them."""
    account = session.client("sts").get_caller_identity()["Account"]
    names = {"Prefix": prefix, "AWS::Region": session.region_name, "AWS::AccountId": account}
    look = {
        "AWS::DynamoDB::Table": _table,
        "AWS::S3::Bucket": _bucket,
        "AWS::KMS::Key": _key,
    }
    found = []
    for logical_id, resource in resources.items():
        kind = resource["Type"]
        identifier = look[kind](session, resource["Properties"], names) if kind in look else None
        if identifier:
            found.append(
                {
                    "ResourceType": kind,
                    "LogicalResourceId": logical_id,
                    "ResourceIdentifier": identifier,
                }
            )
    if not any(each["ResourceType"] == "AWS::KMS::Key" for each in found):
        raise DeployError(f"there is no key of {prefix}: without it, no stored secret opens again")
    return found


def _table(session: Any, properties: Any, names: dict[str, str]) -> dict[str, str] | None:
    dynamodb = session.client("dynamodb")
    name = _filled_in(properties["TableName"], names)
    try:
        dynamodb.describe_table(TableName=name)
    except dynamodb.exceptions.ResourceNotFoundException:
        return None
    return {"TableName": name}


def _bucket(session: Any, properties: Any, names: dict[str, str]) -> dict[str, str] | None:
    name = _filled_in(properties["BucketName"], names)
    try:
        session.client("s3").head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] == "404":
            return None
        raise
    return {"BucketName": name}


def _key(session: Any, properties: Any, names: dict[str, str]) -> dict[str, str] | None:
    """The one enabled key of that description: its alias went with the stack. Raises DeployError."""
    kms = session.client("kms")
    description = _filled_in(properties["Description"], names)
    listed = [key for page in kms.get_paginator("list_keys").paginate() for key in page["Keys"]]
    known = [kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in listed]
    ids = [
        key["KeyId"]
        for key in known
        if key["Description"] == description and key["KeyState"] == "Enabled"
    ]
    if len(ids) > 1:
        raise DeployError(
            f"{len(ids)} keys have the description of the key of {names['Prefix']}: {', '.join(ids)}. "
            "Disable all but the one that sealed its secrets (aws kms disable-key)"
        )
    return {"KeyId": ids[0]} if ids else None


def _filled_in(value: Any, names: dict[str, str]) -> str:
    text = str(value["Fn::Sub"])
    for name, replacement in names.items():
        text = text.replace(f"${{{name}}}", replacement)
    return text


def main() -> int:
    """Reclaims a stage, and says what comes next."""
    parser = argparse.ArgumentParser(prog="python -m deploy.reclaim", description=__doc__)
    add_stage(parser)
    arguments = parser.parse_args()
    session = boto3.Session()
    try:
        found = reclaim(session, f"appjobs-{arguments.stage}", dict(arguments.parameters))
    except (DeployError, ClientError, BotoCoreError) as error:
        print(f"reclaim: {error}", file=sys.stderr)
        return 1
    print("\n".join([*found, f"Now the rest: make deploy STAGE={arguments.stage}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
