"""A policy grants nothing that its owner did not call in this folder's other tests: run them all.

That nothing is missing, those tests show by themselves: MiniStack refuses what no policy allows.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.contract.client import Json
from tests.deployed.conftest import BATCHED, FUNCTIONS, WORKER, Deployed, as_list

# Granted to all or some, and not seen here.
NOT_SEEN = {
    # MiniStack writes the functions' logs by itself.
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    # There is no call of this name: the right makes S3 say that a log does not exist.
    "s3:ListBucket",
    # When an upload fails half-way.
    "s3:AbortMultipartUpload",
}
# What Lambda does in the name of a function that a queue triggers; MiniStack does it by itself.
_POLLING = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
# Granted to one owner, and not seen here.
NOT_SEEN_OF = {
    "Closing": _POLLING,
    "DeadLetters": _POLLING,
    # Many minutes after a log is whole; and if a large segment replaces more than one piece.
    WORKER: {"s3:DeleteObject", "dynamodb:BatchWriteItem"},
}
# The calls that an action allows, if they have another name.
CALLS = {
    "dynamodb:PutItem": ["PutItem", "TransactWriteItems"],
    "dynamodb:UpdateItem": ["UpdateItem", "TransactWriteItems"],
    "dynamodb:DeleteItem": ["DeleteItem", "TransactWriteItems"],
    "sqs:SendMessage": ["SendMessage", "SendMessageBatch"],
    "sqs:DeleteMessage": ["DeleteMessageBatch"],
    "sqs:ChangeMessageVisibility": ["ChangeMessageVisibilityBatch"],
    "s3:GetObject": ["GetObject", "HeadObject"],
}
Grant = tuple[str, str]  # an action, and the resource or the pattern of resources


def is_used(deployed: Deployed, owner: str, grant: Grant) -> bool:
    """Whether the owner called anything that needs this."""
    action, pattern = grant
    return any(
        fnmatchcase(resource, pattern)
        for call in CALLS.get(action, [action.partition(":")[2]])
        for event in recorded(deployed, call)
        if caller(event) == owner
        for resource in resources(deployed, action, event)
    )


def recorded(deployed: Deployed, call: str) -> Iterator[Json]:
    """All calls of that name, the newest first."""
    query: Json = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": call}]}
    # The last of a page is the first of the next.
    while (page := lookup(deployed, query)) and page[-1]["EventTime"] != query.get("EndTime"):
        query["EndTime"] = page[-1]["EventTime"]
        yield from ({**event, **json.loads(event["CloudTrailEvent"])} for event in page)


def lookup(deployed: Deployed, query: Json) -> list[Json]:
    """A page of CloudTrail. Written out, since boto3 asks for whole seconds only."""
    target = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents"
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    return list(deployed.send("cloudtrail", "POST", "", headers, query)["Events"])


def caller(event: Json) -> str:
    """The name that the caller adds to its user agent."""
    words = str(event["userAgent"]).split()
    return next((word.removeprefix("app/") for word in words if word.startswith("app/")), "")


def resources(deployed: Deployed, action: str, event: Json) -> Iterator[str]:
    """What the call did this to."""
    parameters = event["requestParameters"]
    match action.partition(":")[0]:
        case "dynamodb":
            for table in tables(action, str(event["eventName"]), parameters):
                yield f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}"
        case "sqs":
            queue = parameters.get("QueueName") or parameters["QueueUrl"].rpartition("/")[2]
            yield f"arn:aws:sqs:us-east-1:000000000000:{queue}"
        case "kms":
            # The stack's only key; a call names its alias, or none.
            yield f"arn:aws:kms:us-east-1:000000000000:key/{deployed.key}"
        case "s3":
            path = "/".join(resource["ResourceName"] for resource in event["Resources"])
            yield f"arn:aws:s3:::{path}"


def tables(action: str, call: str, parameters: Json) -> Iterator[str]:
    """The tables and indexes of a call of DynamoDB; of a transaction, those of its parts of that kind."""
    if call == "TransactWriteItems":
        kind = action.removeprefix("dynamodb:").removesuffix("Item")
        parts = parameters["TransactItems"]
        yield from (part[kind]["TableName"] for part in parts if kind in part)
    elif call == "BatchGetItem":
        yield from parameters["RequestItems"]
    else:
        index = parameters.get("IndexName")
        yield parameters["TableName"] + (f"/index/{index}" if index else "")


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
def test_nothing_is_granted_in_vain(deployed: Deployed, owner: str) -> None:
    not_seen = NOT_SEEN | NOT_SEEN_OF.get(owner, set())
    grants = {grant for grant in granted(deployed, owner) if grant[0] not in not_seen}
    assert grants
    assert {grant for grant in grants if not is_used(deployed, owner, grant)} == set()
