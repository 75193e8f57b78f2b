"""What a web page, or another user of the machine, gets of the local AWS: nothing."""

import json
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from dev.aws import Aws
from dev.ministack import keys_of

PAGE = "https://evil.example"
PREFIX = "appjobs-dev"
JSON = {"Content-Type": "application/x-amz-json-1.0"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# Method, path, headers and body of what could do harm, or show something.
CALLS: dict[str, tuple[str, str, Mapping[str, str], str]] = {
    "list tables": ("POST", "/", {**JSON, "X-Amz-Target": "DynamoDB_20120810.ListTables"}, "{}"),
    "scan": (
        "POST",
        "/",
        {**JSON, "X-Amz-Target": "DynamoDB_20120810.Scan"},
        json.dumps({"TableName": f"{PREFIX}-nodes"}),
    ),
    "put": (
        "POST",
        "/",
        {**JSON, "X-Amz-Target": "DynamoDB_20120810.PutItem"},
        json.dumps({"TableName": f"{PREFIX}-tokens", "Item": {"Hash": {"S": "planted"}}}),
    ),
    "send": (
        "POST",
        "/",
        {**JSON, "X-Amz-Target": "AmazonSQS.SendMessage"},
        json.dumps({"QueueUrl": f"/000000000000/{PREFIX}-dead-letters", "MessageBody": "planted"}),
    ),
    "send by a form": (
        "POST",
        f"/000000000000/{PREFIX}-dead-letters",
        FORM,
        "Action=SendMessage&MessageBody=planted",
    ),
    "new key": ("POST", "/", FORM, "Action=CreateAccessKey&Version=2010-05-08"),
    "read a bucket": ("GET", "/BUCKET", {}, ""),
    "write an object": ("PUT", "/BUCKET/planted", {}, "planted"),
    "reset": ("POST", "/_ministack/reset", {}, ""),
    "reset, quoted": ("POST", "/%5fministack/reset", {}, ""),
    "messages": ("GET", "/_ministack/sqs/messages", {}, ""),
    "state of a function": ("GET", "/_ministack/lambda-code/x", {}, ""),
    "another health": ("GET", "/_localstack/health", {}, ""),
    "a user's sign-in": ("GET", "/oauth2/authorize", {}, ""),
}
SERVICES = {
    "send": "sqs",
    "send by a form": "sqs",
    "new key": "iam",
    "read a bucket": "s3",
    "write an object": "s3",
}
# How a caller without our keys may sign.
KEYS = {
    "the usual ones": Credentials("test", "test"),
    "an account": Credentials("000000000000", "test"),
    "none that there is": Credentials("AKIAAAAAAAAAAAAAAAAA", "secret"),
}


def call(aws: Aws, name: str) -> tuple[str, str, dict[str, str], str]:
    """Method, URL, headers and body, as a page would send them."""
    method, path, headers, body = CALLS[name]
    path = path.replace("BUCKET", aws.environment["LOG_BUCKET"])
    return method, aws.endpoint + path, {**headers, "Origin": PAGE}, body


def sent(
    aws: Aws, name: str, credentials: Credentials | None, auth: Any = SigV4Auth, **more: str
) -> Any:
    """The answer to the call, signed or not."""
    method, url, headers, body = call(aws, name)
    headers |= more
    request = AWSRequest(method, url, headers)
    # A query's signature covers no body, and botocore would make a part of the query of it.
    request.data = b"" if auth is SigV4QueryAuth else body.encode()
    if credentials:
        auth(credentials, SERVICES.get(name, "dynamodb"), "us-east-1").add_auth(request)
    ready = request.prepare()
    return requests.request(
        method, ready.url, headers=dict(ready.headers), data=body.encode(), timeout=30
    )


def refused(answer: requests.Response) -> bool:
    """Whether it is not a success, and has nothing that a page should not read."""
    return answer.status_code == 403 and "planted" not in answer.text and PREFIX not in answer.text


def all_refused(answers: Iterable[requests.Response]) -> None:
    assert [(one.url, one.status_code, one.text) for one in answers if not refused(one)] == []


@pytest.fixture(scope="module", autouse=True)
def nothing_was_planted(aws: Aws) -> Iterator[None]:
    client: Callable[[str], Any] = aws.client  # type: ignore[attr-defined]
    tables = client("dynamodb").list_tables()["TableNames"]
    yield
    assert client("dynamodb").list_tables()["TableNames"] == tables
    key = {"Hash": {"S": "planted"}}
    assert "Item" not in client("dynamodb").get_item(TableName=f"{PREFIX}-tokens", Key=key)
    bucket = aws.environment["LOG_BUCKET"]
    assert "Contents" not in client("s3").list_objects_v2(Bucket=bucket, Prefix="planted")
    url = client("sqs").get_queue_url(QueueName=f"{PREFIX}-dead-letters")["QueueUrl"]
    assert "Messages" not in client("sqs").receive_message(QueueUrl=url)
    assert client("iam").list_access_keys()["AccessKeyMetadata"] == []


def test_a_call_without_a_signature_is_refused(aws: Aws) -> None:
    all_refused(sent(aws, name, None) for name in CALLS)


def test_a_page_may_not_even_ask(aws: Aws) -> None:
    for name in CALLS:
        method, url, headers, _ = call(aws, name)
        asking = {
            "Origin": PAGE,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(headers).lower(),
        }
        answer = requests.options(url, headers=asking, timeout=30)
        assert refused(answer), (name, answer.status_code)
        assert not [one for one in answer.headers if one.lower().startswith("access-control")]


@pytest.mark.parametrize("auth", [SigV4Auth, SigV4QueryAuth])
@pytest.mark.parametrize("keys", KEYS)
def test_other_keys_open_nothing(aws: Aws, keys: str, auth: Any) -> None:
    all_refused(sent(aws, name, KEYS[keys], auth) for name in CALLS)


@pytest.mark.parametrize("auth", [SigV4Auth, SigV4QueryAuth])
def test_the_name_of_our_key_without_its_secret_opens_nothing(aws: Aws, auth: Any) -> None:
    """The name is in every link to a log."""
    ours = Credentials(aws.environment["AWS_ACCESS_KEY_ID"], "not the secret")
    all_refused(sent(aws, name, ours, auth) for name in CALLS)


@pytest.mark.parametrize(
    "host",
    [
        "x.execute-api.localhost",
        "0123abcd.execute-api.evil.example",
        "0123abcd.execute-api.localhost",
        "0123abcd.execute-api.localhost.evil.example",
        "evil.execute-api.0123abcd.execute-api.localhost",
    ],
)
@pytest.mark.parametrize("keys", KEYS)
def test_the_name_of_an_api_opens_nothing_else(aws: Aws, host: str, keys: str) -> None:
    """A page reaches this machine by each name under `localhost`."""
    all_refused(sent(aws, name, KEYS[keys], Host=f"{host}:4566") for name in CALLS)


def test_our_keys_do_not_open_the_paths_that_check_none(aws: Aws) -> None:
    ours = Credentials(
        aws.environment["AWS_ACCESS_KEY_ID"], aws.environment["AWS_SECRET_ACCESS_KEY"]
    )
    assert sent(aws, "list tables", ours).status_code == 200
    all_refused(sent(aws, name, ours) for name in ("reset", "messages", "another health"))


def test_a_signature_is_good_for_the_call_that_was_signed(aws: Aws) -> None:
    env = aws.environment
    session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
    version = Config(signature_version="v4")
    s3 = session.client("s3", "us-east-1", endpoint_url=aws.endpoint, config=version)
    place = {"Bucket": aws.environment["LOG_BUCKET"], "Key": "a-log"}
    s3.put_object(**place, Body=b"text")
    link = s3.generate_presigned_url("get_object", place, ExpiresIn=300)
    assert requests.get(link, timeout=30).content == b"text"
    assert refused(requests.delete(link, timeout=30))
    assert refused(requests.get(link.replace("a-log", "b-log"), timeout=30))
    old = s3.generate_presigned_url("get_object", place, ExpiresIn=1)
    time.sleep(2.1)
    assert requests.get(old, timeout=30).status_code == 403


def test_a_socket_of_a_page_is_refused(aws: Aws) -> None:
    headers = {
        "Origin": PAGE,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert requests.get(f"{aws.endpoint}/", headers=headers, timeout=30).status_code == 403


def test_whether_it_is_up_is_told(aws: Aws) -> None:
    assert requests.get(f"{aws.endpoint}/_ministack/health", timeout=30).status_code == 200


def test_its_state_and_its_keys_are_for_nobody_else(aws_directory: Path, aws: Aws) -> None:
    assert stat.S_IMODE(aws_directory.stat().st_mode) == 0o700
    keys = aws_directory / "keys.json"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert json.loads(keys.read_text())["AWS_ACCESS_KEY_ID"] == aws.environment["AWS_ACCESS_KEY_ID"]


def test_the_keys_stay_with_the_state_and_are_no_other_states(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    first, other, again = (keys_of(folder) for folder in (*folders, folders[0]))
    assert first == again
    assert not set(first.values()) & set(other.values())
