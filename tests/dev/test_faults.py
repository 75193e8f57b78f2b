"""The proxy that fails calls: each fault does what its name says, and all else passes unchanged."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from dev.addresses import free_port
from dev.aws import Aws
from tests.support.faults import FORWARDED, REPEATED, Fault, Faults, Rule
from tests.support.waiting import wait_until

SCOPE = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{}/aws4_request, Signature=0"
SEND = {"Authorization": SCOPE.format("sqs"), "X-Amz-Target": "AmazonSQS.SendMessage"}
S3 = {"Authorization": SCOPE.format("s3")}


@dataclass(frozen=True)
class Seen:
    """A request as it reached the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A server behind the proxy that writes down what reaches it."""

    url: str
    seen: list[Seen] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            behind.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            self.send_response(299, "Quite fine")
            self.send_header("X-Twice", "a")
            self.send_header("X-Twice", "b")
            self.send_header("Content-Length", "8")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"answered")

        do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        behind = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield behind
        http.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Faults]:
    with Faults(server.url, "127.0.0.1", free_port(), tmp_path / "faults.log") as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as running:
        yield running


def call(proxy: Faults, headers: dict[str, str] = SEND) -> requests.Response:
    """One call, not tried again."""
    return requests.post(f"{proxy.endpoint}/", b"body", headers=headers, timeout=30)


def test_what_no_rule_strikes_passes_as_it_came(proxy: Faults, server: Server) -> None:
    body = bytes(range(256)) * 4096 * 8
    answer = requests.put(
        f"{proxy.endpoint}/a%2Fb//c?x=%2F%20&y", body, headers={"X-Mine": "1", **S3}, timeout=30
    )
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("PUT", "/a%2Fb//c?x=%2F%20&y", body)
    assert seen.headers["Host"] == proxy.endpoint.removeprefix("http://")
    assert seen.headers["X-Mine"] == "1"
    assert "Content-Type" not in seen.headers
    assert (answer.status_code, answer.reason, answer.content) == (299, "Quite fine", b"answered")
    assert answer.headers["X-Twice"] == "a, b"


def test_the_length_that_a_head_tells_is_kept(proxy: Faults) -> None:
    answer = requests.head(f"{proxy.endpoint}/bucket/key", headers=S3, timeout=30)
    assert answer.headers["Content-Length"] == "8"


def test_calls_are_counted_by_service_operation_and_outcome(proxy: Faults) -> None:
    call(proxy)
    call(proxy, S3)
    signed = {"X-Amz-Credential": "test/20260101/us-east-1/s3/aws4_request"}
    requests.get(f"{proxy.endpoint}/", params=signed, timeout=30)
    proxy.set(Rule(fault=Fault.REFUSE, service="s3", operation="POST"))
    call(proxy, S3)
    counts = {(c.service, c.operation, c.outcome): c.calls for c in proxy.counts()}
    assert counts == {
        ("s3", "GET", FORWARDED): 1,
        ("s3", "POST", FORWARDED): 1,
        ("s3", "POST", Fault.REFUSE): 1,
        ("sqs", "SendMessage", FORWARDED): 1,
    }
    assert proxy.calls(service="s3") == 3
    assert proxy.calls(FORWARDED, operation="Send*") == 1


def test_a_refused_call_is_not_forwarded(proxy: Faults, server: Server) -> None:
    proxy.set(Rule(fault=Fault.REFUSE))
    assert {call(proxy).status_code for _ in range(20)} == {500, 503}
    assert "<Code>" in call(proxy, S3).text
    assert server.seen == []


def client(proxy: Faults, service: str, keys: tuple[str, str] = ("any", "any")) -> Any:
    """A client that tries once and reads errors as they are."""
    session = Session(*keys, region_name="us-east-1")
    once = Config(retries={"total_max_attempts": 1, "mode": "standard"}, signature_version="v4")
    return session.client(service, endpoint_url=proxy.endpoint, config=once)


@pytest.mark.parametrize(
    ("service", "operation", "status", "code"),
    [
        ("sqs", "list_queues", 400, "RequestThrottled"),
        ("dynamodb", "list_tables", 400, "ProvisionedThroughputExceededException"),
        ("kms", "list_keys", 400, "ThrottlingException"),
        ("s3", "list_buckets", 503, "SlowDown"),
    ],
)
def test_a_throttled_call_is_told_so_in_its_services_words(
    proxy: Faults, server: Server, service: str, operation: str, status: int, code: str
) -> None:
    proxy.set(Rule(fault=Fault.THROTTLE))
    with pytest.raises(ClientError) as raised:
        getattr(client(proxy, service), operation)()
    assert raised.value.response["Error"]["Code"] == code
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert server.seen == []


def test_a_delayed_call_lets_others_pass_and_is_forwarded_then(
    proxy: Faults, server: Server, pool: ThreadPoolExecutor
) -> None:
    # By the seed's draw it waits for 4.2 s.
    proxy.set(Rule(fault=Fault.DELAY, service="sqs", seconds=5))
    delayed = pool.submit(call, proxy)
    wait_until(lambda: proxy.calls(Fault.DELAY) == 1)
    call(proxy, S3)
    assert delayed.result(20).text == "answered"
    assert [seen.headers["Authorization"] for seen in server.seen] == [
        SCOPE.format("s3"),
        SCOPE.format("sqs"),
    ]


@pytest.mark.parametrize(("fault", "forwarded"), [(Fault.CUT_BEFORE, 0), (Fault.CUT_AFTER, 1)])
def test_a_cut_call_has_no_answer(
    proxy: Faults, server: Server, fault: Fault, forwarded: int
) -> None:
    proxy.set(Rule(fault=fault))
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        call(proxy)
    assert len(server.seen) == forwarded


def test_a_call_hangs_until_the_rules_change(
    proxy: Faults, server: Server, pool: ThreadPoolExecutor
) -> None:
    proxy.set(Rule(fault=Fault.HANG, service="sqs", operation="SendMessage"))
    hanging: Future[requests.Response] = pool.submit(call, proxy)
    wait_until(lambda: proxy.calls(Fault.HANG) == 1)
    assert call(proxy, S3).text == "answered"
    assert not hanging.done()
    proxy.set()
    assert isinstance(hanging.exception(20), requests.ConnectionError)
    assert call(proxy).text == "answered"
    assert [seen.headers["Authorization"] for seen in server.seen] == [
        SCOPE.format("s3"),
        SCOPE.format("sqs"),
    ]


def test_a_duplicated_call_is_answered_once_and_forwarded_twice(
    proxy: Faults, server: Server
) -> None:
    proxy.set(Rule(fault=Fault.DUPLICATE, operation="SendMessage*", seconds=0.5))
    assert call(proxy).text == "answered"
    wait_until(lambda: proxy.calls(REPEATED) == 1)
    first, second = server.seen
    assert first == second


def test_shares_of_rules_add_up(proxy: Faults, server: Server) -> None:
    proxy.set(
        Rule(fault=Fault.REFUSE, share=0.25),
        Rule(fault=Fault.THROTTLE, share=1.0, service="s3"),
        Rule(fault=Fault.THROTTLE, share=0.25),
    )
    for _ in range(200):
        call(proxy)
    # The draws are seeded: these are always the same.
    assert 35 < proxy.calls(Fault.REFUSE) < 65
    assert 35 < proxy.calls(Fault.THROTTLE) < 65
    assert len(server.seen) == proxy.calls(FORWARDED)


def test_the_same_seed_strikes_the_same_calls(
    proxy: Faults, server: Server, tmp_path: Path
) -> None:
    rule = Rule(fault=Fault.THROTTLE, share=0.5)
    with Faults(server.url, "127.0.0.1", free_port(), tmp_path / "second.log") as second:
        struck = []
        for each in (proxy, second):
            each.set(rule)
            struck.append([call(each).status_code for _ in range(40)])
    assert struck[0] == struck[1]
    assert set(struck[0]) == {299, 400}


def test_a_rule_that_is_none_is_refused_and_the_others_stay(proxy: Faults) -> None:
    proxy.set(Rule(fault=Fault.REFUSE))
    wrong = requests.put(f"{proxy.endpoint}/_faults", b'[{"Fault": "explode"}]', timeout=30)
    assert (wrong.status_code, "explode" in wrong.text) == (400, True)
    assert call(proxy).status_code in (500, 503)


@pytest.fixture
def aws_proxy(aws: Aws, tmp_path: Path) -> Iterator[Faults]:
    with Faults(aws.endpoint, "127.0.0.1", free_port(), tmp_path / "faults.log") as running:
        yield running


def keys_of(aws: Aws) -> tuple[str, str]:
    return (aws.environment["AWS_ACCESS_KEY_ID"], aws.environment["AWS_SECRET_ACCESS_KEY"])


def test_a_queue_is_used_through_the_proxy_whatever_its_url(aws: Aws, aws_proxy: Faults) -> None:
    sqs = client(aws_proxy, "sqs", keys_of(aws))
    url = sqs.create_queue(QueueName=uuid4().hex)["QueueUrl"]
    assert url.startswith(aws_proxy.endpoint)
    sqs.send_message(QueueUrl=url, MessageBody="through")
    directly = url.replace(aws_proxy.endpoint, aws.endpoint)
    (message,) = sqs.receive_message(QueueUrl=directly)["Messages"]
    assert message["Body"] == "through"
    operations = {count.operation for count in aws_proxy.counts()}
    assert operations == {"CreateQueue", "SendMessage", "ReceiveMessage"}


def test_a_big_object_goes_and_comes_through_the_proxy(aws: Aws, aws_proxy: Faults) -> None:
    place = {"Bucket": aws.environment["LOG_BUCKET"], "Key": uuid4().hex}
    body = bytes(range(256)) * 4096 * 6
    s3 = client(aws_proxy, "s3", keys_of(aws))
    s3.put_object(**place, Body=body)
    assert s3.head_object(**place)["ContentLength"] == len(body)
    assert s3.get_object(**place)["Body"].read() == body
    link = s3.generate_presigned_url("get_object", Params=place)
    assert requests.get(link, timeout=30).content == body
    assert aws_proxy.calls(FORWARDED, "s3", "GET") == 2


def test_a_transaction_that_was_cut_off_is_done_once_when_it_is_sent_again(
    aws: Aws, aws_proxy: Faults
) -> None:
    """What the faults of a start rest on: see the proxy's own words."""
    dynamodb = client(aws_proxy, "dynamodb", keys_of(aws))
    table = f"{aws.environment['APPJOBS_PREFIX']}-names"
    put = {
        "TableName": table,
        "Item": {"AppName": {"S": uuid4().hex}, "Name": {"S": "once"}},
        "ConditionExpression": "attribute_not_exists(AppName)",
    }
    transaction = {"TransactItems": [{"Put": put}], "ClientRequestToken": uuid4().hex}
    aws_proxy.set(Rule(fault=Fault.CUT_AFTER))
    with pytest.raises(ConnectionClosedError):
        dynamodb.transact_write_items(**transaction)
    aws_proxy.set()
    dynamodb.transact_write_items(**transaction)
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        dynamodb.transact_write_items(**{**transaction, "ClientRequestToken": uuid4().hex})
