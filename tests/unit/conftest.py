"""AWS played by moto, in this process; nothing here reaches a network or waits."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from moto import mock_aws
from moto.kms.utils import generate_private_key
from pynamodb.models import Model

from chalicelib.clients import aws as clients
from chalicelib.config import settings
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import jobs
from chalicelib.store import models, transactions
from tests.support.builders import serve_node
from tests.support.clock import Clock
from tests.unit.callers import ADMIN

TEMPLATE = Path(__file__).resolve().parents[2] / ".chalice/resources.yaml"


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short functions: `!Sub "${Prefix}-jobs"` as its own text."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))


@pytest.fixture(scope="session")
def shared() -> Iterator[None]:
    """What takes time to make and may be the same for all tests: clients, and a pair of keys."""
    forget()
    with patch("moto.kms.models.generate_private_key", cache(generate_private_key)):
        yield
    forget()


@pytest.fixture
def job_id(aws: None, clock: Clock) -> str:
    """A job, and a worker that serves node n1."""
    serve_node()
    return jobs.create_job(ADMIN, JobRequest(AppName="a", Name="n", Cmd="true")).JobId


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """It stands until somebody sleeps or the test moves it."""
    return Clock().install(monkeypatch)


@pytest.fixture
def aws(shared: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    for model in vars(models).values():
        if isinstance(model, type) and issubclass(model, Model):
            model._connection = None


@cache
def resources() -> list[dict[str, Any]]:
    """What the template has that is deployed."""
    return list(yaml.load(TEMPLATE.read_text(), _Loader)["Resources"].values())


def make_tables() -> None:
    """The tables of the template that is deployed."""
    dynamodb = clients.client("dynamodb")
    for resource in resources():
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
