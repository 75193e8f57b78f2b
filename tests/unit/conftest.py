"""AWS played by moto, in this process; nothing here reaches a network or waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from moto import mock_aws

from chalicelib.clients import aws as clients
from chalicelib.config import settings
from chalicelib.store import transactions
from chalicelib.store.models import AuditEntry, Execution, Job, JobName, Node, Result, Token

TEMPLATE = Path(__file__).resolve().parents[2] / ".chalice/resources.yaml"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions: `!Sub "${Prefix}-jobs"` as its own text."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))


@pytest.fixture(scope="module")
def fresh_clients() -> Iterator[None]:
    """No client of another AWS; a file's tests share theirs, since making them is what takes time."""
    forget()
    yield
    forget()


@pytest.fixture
def aws(fresh_clients: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty tables as the template has them, a bucket, and the key with its alias."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        make_tables()
        clients.client("s3").create_bucket(Bucket=settings.log_bucket)
        kms = clients.client("kms")
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=settings.kms_key, TargetKeyId=key)
        yield


def forget() -> None:
    """Clients and caches made under another AWS."""
    clients.make_client.cache_clear()
    transactions._connection.cache_clear()
    for model in (Job, JobName, Execution, Result, Node, Token, AuditEntry):
        model._connection = None


def make_tables() -> None:
    """The tables of the template that is deployed."""
    resources = yaml.load(TEMPLATE.read_text(), _Loader)["Resources"].values()
    dynamodb = clients.client("dynamodb")
    for resource in resources:
        if resource["Type"] == "AWS::DynamoDB::Table":
            wanted = resource["Properties"]
            indexes = wanted.get("GlobalSecondaryIndexes")
            dynamodb.create_table(
                TableName=wanted["TableName"].replace("${Prefix}", settings.prefix),
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=wanted["AttributeDefinitions"],
                KeySchema=wanted["KeySchema"],
                **({"GlobalSecondaryIndexes": indexes} if indexes else {}),
            )
