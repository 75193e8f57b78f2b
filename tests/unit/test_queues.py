"""Queues: names that SQS takes, settings that deployers change, batches whole or said to have failed."""

import dataclasses
import json
import re
from typing import Any
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.clients import queues
from chalicelib.clients.aws import client
from chalicelib.clients.queues import TargetMessage
from chalicelib.config import settings
from deploy.queues import bring_up_to_date

SWARM_NODE = "24ifsmvkjbyhk4wv0pvvr6x2p"
ENGINE = "7TRN:IPZB:QYBB:VPBQ:UMPP:KARE:6ZNR:XE6T:7EWV:PKF4:ZOJD:TPYS"


def message(number: int = 0) -> TargetMessage:
    return TargetMessage("j1", "1.000000", f"c{number}", "a")


def attributes(url: str) -> dict[str, str]:
    answer = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return dict(answer["Attributes"])


def test_a_swarm_node_is_readable_in_its_queues_name() -> None:
    assert queues.queue_name(SWARM_NODE) == f"{settings.prefix}-node-{SWARM_NODE}"


def test_an_engine_id_loses_only_its_colons() -> None:
    assert queues.queue_name(ENGINE) == f"{settings.prefix}-node-{ENGINE.replace(':', '-')}"


@given(st.sampled_from([SWARM_NODE, ENGINE]) | st.text(min_size=1), st.integers(1, 41))
def test_every_name_is_one_that_sqs_takes(node_id: str, prefix: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "settings", dataclasses.replace(settings, prefix="p" * prefix))
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", queues.queue_name(node_id))


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    assert queues.queue_name("x" * 100 + "1") != queues.queue_name("x" * 100 + "2")


@given(st.integers(0, 45))
def test_batches_hold_all_in_order_and_ten_at_most(count: int) -> None:
    batches = list(queues.split_into_batches(range(count)))
    assert [item for batch in batches for item in batch] == list(range(count))
    assert all(len(batch) == queues.MAX_BATCH for batch in batches[:-1])


@pytest.mark.usefixtures("aws")
def test_making_a_queue_again_keeps_its_messages() -> None:
    url = queues.ensure_queue("n1")
    queues.send([(url, message())])
    assert queues.ensure_queue("n1") == url
    assert [received.target for received in queues.receive(url, 10, 0)] == [message()]


def assert_up_to_date(url: str, arn: str) -> None:
    found = attributes(url)
    assert found["VisibilityTimeout"] == str(queues.VISIBILITY_SECONDS)
    assert found["MessageRetentionPeriod"] == str(queues.RETENTION_SECONDS)
    redrive = json.loads(found["RedrivePolicy"])
    assert redrive == {"deadLetterTargetArn": arn, "maxReceiveCount": queues.MAX_RECEIVES}


@pytest.fixture
def dead_letters(aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a queue for dead letters, as the settings have it."""
    arn = attributes(client("sqs").create_queue(QueueName="dead")["QueueUrl"])["QueueArn"]
    changed = dataclasses.replace(settings, dead_letter_queue_arn=arn)
    monkeypatch.setattr(queues, "settings", changed)
    return arn


def test_a_new_queue_has_all_its_settings(dead_letters: str) -> None:
    assert_up_to_date(queues.ensure_queue("n1"), dead_letters)


def test_only_who_deploys_changes_a_queue(dead_letters: str) -> None:
    sqs = client("sqs")
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    old = {"VisibilityTimeout": "7", "Policy": policy}
    urls = [
        sqs.create_queue(QueueName=queues.queue_name(node), Attributes=old)["QueueUrl"]
        for node in ("n1", "n2")
    ]
    assert queues.ensure_queue("n1") == urls[0]
    assert attributes(urls[0])["VisibilityTimeout"] == "7"
    outputs = {"AppjobsPrefix": settings.prefix, "DeadLetterQueueArn": dead_letters}
    bring_up_to_date(sqs, outputs)
    for url in urls:
        assert_up_to_date(url, dead_letters)
        assert not attributes(url).get("Policy")
    assert attributes(sqs.get_queue_url(QueueName="dead")["QueueUrl"])["VisibilityTimeout"] == "30"


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("ContainerId", "../containers/c1"),
        ("ContainerId", "c1/archive"),
        ("ContainerId", "c1?x"),
        ("ContainerId", ""),
        ("ContainerId", "c1\n"),
        ("ContainerId", "c" * 129),
        ("JobId", "../j1"),
        ("JobId", "j1\n"),
        ("JobId", "j" * 37),
        ("ExecutorId", "1.000000/x"),
        ("ExecutorId", "1"),
        ("ExecutorId", "1.000000\n"),
        ("AppName", "a" * 129),
    ],
)
def test_ids_that_are_none_are_no_message(name: str, id: str) -> None:
    body = {"JobId": "j1", "ExecutorId": "1.000000", "ContainerId": "c1", "AppName": "a"}
    assert queues.decode(json.dumps(body)) == message(1)
    assert queues.decode(json.dumps(body | {name: id})) is None


@pytest.mark.parametrize("body", ["", "[]", '{"JobId": "\\ud800"}', '{"x": ' + "[" * 100_000])
def test_what_is_no_message_keeps_no_other_from_being_received(body: str) -> None:
    assert queues.decode(body) is None


def test_a_message_of_an_api_that_told_no_application_is_taken() -> None:
    ids = {"JobId": "j1", "ExecutorId": "1.000000", "ContainerId": "c1"}
    assert queues.decode(json.dumps(ids)) == TargetMessage("j1", "1.000000", "c1", "")


@pytest.mark.usefixtures("aws")
def test_each_queue_gets_its_own_messages_whatever_their_number() -> None:
    urls = {node: queues.ensure_queue(node) for node in ("n1", "n2")}
    queues.send(
        [(urls["n1"], message(number)) for number in range(23)] + [(urls["n2"], message(99))]
    )
    got: list[TargetMessage] = []
    while batch := queues.receive(urls["n1"], 10, 0):
        got += [received.target for received in batch]
    assert sorted(target.container_id for target in got) == sorted(f"c{n}" for n in range(23))
    assert [received.target for received in queues.receive(urls["n2"], 10, 0)] == [message(99)]


@pytest.mark.usefixtures("aws")
def test_nothing_to_send_is_no_request() -> None:
    queues.send([])


class Sqs:
    """The one call of SQS that `send` makes."""

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        raise NotImplementedError


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = create_autospec(Sqs, instance=True)
    monkeypatch.setattr(queues, "client", lambda service, seconds=0: fake)
    monkeypatch.setattr(queues._send_batch.retry, "sleep", lambda seconds: None)  # type: ignore[attr-defined]
    return fake


def bodies(call: Any) -> list[str]:
    return [json.loads(entry["MessageBody"])["ContainerId"] for entry in call.kwargs["Entries"]]


def test_only_what_was_refused_is_sent_again(sqs: Any) -> None:
    refused = {"Failed": [{"Id": "1", "Code": "InternalError"}]}
    sqs.send_message_batch.side_effect = [refused, {}]
    queues.send([("q", message(number)) for number in range(3)])
    assert [bodies(call) for call in sqs.send_message_batch.call_args_list] == [
        ["c0", "c1", "c2"],
        ["c1"],
    ]


def test_what_stays_refused_is_an_error_and_the_others_are_sent(sqs: Any) -> None:
    def answer(QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        return {"Failed": [{"Id": "0", "Code": "InternalError"}]} if QueueUrl == "bad" else {}

    sqs.send_message_batch.side_effect = answer
    with pytest.raises(queues.SendFailed, match="1 messages, the first as InternalError"):
        queues.send([("bad", message(1)), ("good", message(2))])
    sent = {call.kwargs["QueueUrl"] for call in sqs.send_message_batch.call_args_list}
    assert sent == {"bad", "good"}


def test_a_message_holds_ids_part_and_application_and_nothing_else(sqs: Any) -> None:
    sqs.send_message_batch.return_value = {}
    queues.send([("q", message(1))])
    (entry,) = sqs.send_message_batch.call_args.kwargs["Entries"]
    assert json.loads(entry["MessageBody"]) == {
        "JobId": "j1",
        "ExecutorId": "1.000000",
        "ContainerId": "c1",
        "AppName": "a",
        "Part": 0,
    }


@pytest.mark.usefixtures("aws")
def test_a_redelivered_message_says_so() -> None:
    url = queues.ensure_queue("n1")
    queues.send([(url, message())])
    (first,) = queues.receive(url, 10, 0)
    assert queues.hold(url, [first.receipt], 0) == []
    (second,) = queues.receive(url, 10, 0)
    assert (first.first, second.first) == (True, False)


@pytest.mark.usefixtures("aws")
def test_a_message_of_others_is_passed_over() -> None:
    url = queues.ensure_queue("n1")
    client("sqs").send_message(QueueUrl=url, MessageBody="hello")
    queues.send([(url, message())])
    got = queues.receive(url, 10, 0) + queues.receive(url, 10, 0)
    assert [received.target for received in got] == [message()]


@pytest.mark.usefixtures("aws")
def test_a_deleted_message_is_gone() -> None:
    url = queues.ensure_queue("n1")
    queues.send([(url, message())])
    (received,) = queues.receive(url, 10, 0)
    queues.hold(url, [received.receipt], 0)
    queues.delete(url, received.receipt)
    assert queues.receive(url, 10, 0) == []


@pytest.mark.usefixtures("aws")
def test_a_receipt_that_does_not_count_is_reported() -> None:
    assert len(queues.hold(queues.ensure_queue("n1"), ["no receipt"])) == 1
