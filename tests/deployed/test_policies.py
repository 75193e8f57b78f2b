"""Every policy grants what its owner called in this folder's other tests, and nothing else.

That nothing is missing, those tests show: MiniStack refuses what no policy allows.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.contract.client import Json
from tests.deployed.conftest import BATCHED, FUNCTIONS, WORKER, Deployed, as_list

# Granted to all or some, and not seen here.
NOT_SEEN = {
    # MiniStack writes the functions' logs by itself.
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    # No call of its own: it makes S3 say of a log that there is none.
    "s3:ListBucket",
    # When an upload fails half-way.
    "s3:AbortMultipartUpload",
}
# What Lambda does in the name of a function that a queue triggers; MiniStack does it by itself.
POLLING = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
# What IAM has for the methods of S3 on objects, those of multipart uploads included.
S3 = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
}
Grant = tuple[str, str]  # an action, and the resource or the pattern of resources


@pytest.fixture(scope="module")
def calls(deployed: Deployed) -> dict[str, set[Grant]]:
    """Who called what."""
    calls: dict[str, set[Grant]] = defaultdict(set)
    for event in recorded(deployed):
        if who := caller(event):
            calls[who].update(actions(deployed, event))
    return calls


def recorded(deployed: Deployed) -> Iterator[Json]:
    """All calls, the newest first. Written out, since boto3 asks for whole seconds only."""
    end: float | None = None
    while page := lookup(deployed, {} if end is None else {"EndTime": end}):
        # The last of a page is the first of the next.
        if page[-1]["EventTime"] == end:
            return
        end = page[-1]["EventTime"]
        yield from ({**event, **json.loads(event["CloudTrailEvent"])} for event in page)


def lookup(deployed: Deployed, query: Json) -> list[Json]:
    endpoint = deployed.aws.endpoint
    target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents"
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    request = AWSRequest("POST", endpoint, headers, json.dumps(query).encode())
    SigV4Auth(Credentials("test", "test"), "cloudtrail", "us-east-1").add_auth(request)
    answer = requests.post(endpoint, request.data, headers=dict(request.headers), timeout=60)
    return list(answer.json()["Events"])


def caller(event: Json) -> str:
    """The name that the caller was told to add to its user agent."""
    words = str(event["userAgent"]).split()
    return next((word.removeprefix("app/") for word in words if word.startswith("app/")), "")


def actions(deployed: Deployed, event: Json) -> Iterator[Grant]:
    """What IAM asks for when this is called."""
    service = str(event["eventSource"]).partition(".")[0]
    name, parameters = str(event["eventName"]), event["requestParameters"]
    match service:
        case "dynamodb":
            yield from (
                (f"dynamodb:{item}", table_arn(of)) for item, of in on_tables(name, parameters)
            )
        case "sqs":
            queue = parameters.get("QueueName") or parameters["QueueUrl"].rpartition("/")[2]
            yield f"sqs:{name.removesuffix('Batch')}", f"arn:aws:sqs:us-east-1:000000000000:{queue}"
        case "kms":
            key = deployed.physical("Key")
            yield f"kms:{name}", f"arn:aws:kms:us-east-1:000000000000:key/{key}"
        case "s3":
            path = "/".join(resource["ResourceName"] for resource in event["Resources"])
            yield S3.get(name, f"s3:{name}"), f"arn:aws:s3:::{path}"
        case _:
            yield f"{service}:{name}", "*"


def on_tables(name: str, parameters: Json) -> Iterator[tuple[str, str]]:
    """The actions of a call of DynamoDB, each with its table: of a transaction, those of its parts."""
    if name == "TransactWriteItems":
        for part in parameters["TransactItems"]:
            for action, item in part.items():
                yield f"{action}Item", item["TableName"]
    elif name == "BatchGetItem":
        yield from ((name, table) for table in parameters["RequestItems"])
    else:
        index = parameters.get("IndexName")
        yield name, parameters["TableName"] + (f"/index/{index}" if index else "")


def table_arn(name: str) -> str:
    return f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"


def granted(deployed: Deployed, owner: str) -> Iterator[Grant]:
    """What a policy grants, as it was deployed."""
    for statement in document(deployed, owner)["Statement"]:
        for action in as_list(statement["Action"]):
            if action.removesuffix("Batch") not in BATCHED or action in BATCHED:
                # The tests add a key's alias.
                yield action, as_list(statement["Resource"])[0]


def document(deployed: Deployed, owner: str) -> Json:
    iam = deployed.client("iam")
    if owner == WORKER:
        policy = deployed.outputs["WorkerPolicyArn"]
        default = iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"]
        version = iam.get_policy_version(PolicyArn=policy, VersionId=default)
        return dict(version["PolicyVersion"]["Document"])
    configuration = deployed.client("lambda").get_function_configuration(
        FunctionName=deployed.physical(owner)
    )
    role = configuration["Role"].rpartition("/")[2]
    (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
    return dict(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])


def test_every_function_has_a_role_of_its_own(deployed: Deployed) -> None:
    functions = deployed.client("lambda").list_functions()["Functions"]
    assert len(functions) == len(FUNCTIONS) == len({function["Role"] for function in functions})


@pytest.mark.parametrize("owner", [*FUNCTIONS, WORKER])
def test_nothing_is_granted_in_vain(
    deployed: Deployed, calls: dict[str, set[Grant]], owner: str
) -> None:
    assert calls[owner], "run the whole folder: its other tests make the calls"
    not_seen = NOT_SEEN | (POLLING if owner == "DeadLetters" else set())
    grants = {grant for grant in granted(deployed, owner) if grant[0] not in not_seen}
    assert {grant for grant in grants if not covers(grant, calls[owner])} == set()


@pytest.mark.parametrize("owner", [*FUNCTIONS, WORKER])
def test_what_is_called_is_granted(
    deployed: Deployed, calls: dict[str, set[Grant]], owner: str
) -> None:
    grants = set(granted(deployed, owner))
    called = calls[owner]
    assert {call for call in called if not any(covers(grant, {call}) for grant in grants)} == set()


def covers(grant: Grant, calls: set[Grant]) -> bool:
    """Whether one of the calls is of those that are granted."""
    action, pattern = grant
    return any(action == called and fnmatchcase(resource, pattern) for called, resource in calls)
