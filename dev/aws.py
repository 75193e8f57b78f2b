"""A local AWS, whatever plays it: where it is, how to use it, and our template in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from deploy.cloudformation import DeployError, deploy_stack, settings_of
from deploy.project import TEMPLATE
from dev.addresses import proxy_exceptions
from dev.children import Child
from dev.errors import LocalError

STACK = "appjobs-dev"
_REGION = "us-east-1"
# LocalStack and DynamoDB Local take any.
_ANY_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass
class Aws:
    """A local AWS. API and worker use it with `environment`, once the template is deployed."""

    endpoint: str
    # The first one has the endpoint. There is none if a container has it.
    children: list[Child] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def logs(self) -> list[Path]:
        return [child.log for child in self.children]

    @property
    def pid(self) -> int | None:
        return self.children[0].pid if self.children else None

    def client(self, service: str) -> Any:
        """A boto3 client of the service, wherever the environment says that it is."""
        return aws_client(self.environment, service)

    def check(self) -> None:
        """Raises LocalError if one of its processes has ended."""
        for child in self.children:
            child.check()

    def stop(self) -> None:
        """Stops it. Its state stays in the state directory (LocalStack keeps none)."""
        for child in self.children:
            child.stop()

    @contextmanager
    def stopped_on_failure(self) -> Iterator[None]:
        """Stops it if the block, which goes on with its start, fails or is interrupted."""
        try:
            yield
        except BaseException:
            self.stop()
            raise


def aws_environment(endpoint: str, keys: Mapping[str, str] = _ANY_KEYS) -> dict[str, str]:
    """What botocore needs to use the AWS at `endpoint`."""
    host = str(urlsplit(endpoint).hostname)
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": _REGION,
        **keys,
        **proxy_exceptions(host),
    }


def aws_client(environment: Mapping[str, str], service: str) -> Any:
    """A boto3 client of the AWS of that environment, whatever this process's own environment says."""
    own = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}")
    return boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    ).client(service, endpoint_url=own or environment["AWS_ENDPOINT_URL"])


def deploy_template(
    environment: Mapping[str, str], prefix: str = STACK, template: str | None = None
) -> dict[str, str]:
    """Deploys our template, or the given one, as the stack `prefix`, which is made or updated.

    `environment` says on which AWS. Returns the settings of API and worker. Raises LocalError.
    """
    stack = {
        "StackName": prefix,
        "TemplateBody": template or TEMPLATE.read_text(encoding="utf-8"),
        "Parameters": [{"ParameterKey": "Prefix", "ParameterValue": prefix}],
    }
    try:
        outputs = deploy_stack(aws_client(environment, "cloudformation"), stack)
    except DeployError as error:
        raise LocalError(str(error)) from None
    return settings_of(outputs)
