"""One queue per node: its name, its settings, and the small messages on it."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
from msgspec import Meta
from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from chalicelib.clients.aws import ANSWER_SECONDS, client
from chalicelib.config import settings
from chalicelib.domain.ids import EXECUTOR_ID

# A message stays invisible this long after it was received or its lease was extended. This is short
# enough: when a dead worker's targets are adopted, the engine still remembers the execs (5 min).
VISIBILITY_SECONDS = 60
# After this many receives a message is set aside in the dead-letter queue.
MAX_RECEIVES = 20
# The longest time that SQS allows: a command may run for days, and its message must still be there if its
# worker dies.
RETENTION_SECONDS = 1_209_600
# What SQS takes in one request.
MAX_BATCH = 10
_SENDERS = 16
_JOB_ID = r"^[0-9a-z-]{1,36}$(?!\n)"
_EXECUTOR_ID = rf"^{EXECUTOR_ID}$(?!\n)"
_CONTAINER_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$(?!\n)"

_T = TypeVar("_T")

log = structlog.stdlib.get_logger(__name__)


class TargetMessage(msgspec.Struct, frozen=True, rename="pascal"):
    """Asks a node's worker to run an execution in one container.

    Anybody with access to the queue may have sent it. Its ids become parts of keys and paths, so they are
    checked.
    """

    job_id: Annotated[str, Meta(pattern=_JOB_ID)]
    # When it was accepted, in seconds.
    executor_id: Annotated[str, Meta(pattern=_EXECUTOR_ID)]
    container_id: Annotated[str, Meta(pattern=_CONTAINER_ID)]
    # This decides only whose turn it is. Messages of older versions have none.
    app_name: Annotated[str, Meta(max_length=128)] = ""
    # The part of the execution's targets that should have this one.
    part: Annotated[int, Meta(ge=0)] = 0

    @property
    def ids(self) -> tuple[str, str, str]:
        """The ids of the target. Two messages of one target have the same; the rest may differ."""
        return self.job_id, self.executor_id, self.container_id

    @property
    def result_ids(self) -> tuple[str, str, int, str]:
        """The key of the target's result. If the message is wrong, no result has this key."""
        return self.job_id, self.executor_id, self.part, self.container_id


class EndedMessage(msgspec.Struct, frozen=True, rename="pascal"):
    """Says that all targets of a part of an execution are over: maybe now the execution is, too."""

    job_id: Annotated[str, Meta(pattern=_JOB_ID)]
    executor_id: Annotated[str, Meta(pattern=_EXECUTOR_ID)]


class Received(msgspec.Struct, frozen=True):
    """A message in our hands. Deleting or extending it needs its `receipt`.

    If a message is delivered again, it has the same `id` and another receipt. SQS or upkeep may make a
    second message for a target: it has another `id`.
    """

    target: TargetMessage
    id: str
    receipt: str
    # Whether it is delivered for the first time, as far as SQS knows.
    first: bool


class SendFailed(Exception):
    """SQS did not take some of the messages."""


def queue_name(node_id: str) -> str:
    """The name of a node's queue: readable if SQS allows it (engine IDs have colons)."""
    name = f"{settings.prefix}-node-{node_id.replace(':', '-')}"
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        return name
    return f"{settings.prefix}-node-{hashlib.sha256(node_id.encode()).hexdigest()[:32]}"


def ensure_queue(node_id: str) -> str:
    """Makes the node's queue if there is none; returns its URL.

    A queue that exists stays as it is: a worker with the right to change queues could open them to
    others. `make deploy` brings all queues up to date.
    """
    sqs, name = client("sqs"), queue_name(node_id)
    try:
        return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])
    except sqs.exceptions.QueueDoesNotExist:
        wanted = make_attributes(settings.dead_letter_queue_arn)
        return str(sqs.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"])


def make_attributes(dead_letter_queue_arn: str) -> dict[str, str]:
    """The settings of a node's queue; none for dead letters if there is no queue for them."""
    wanted = {
        "VisibilityTimeout": str(VISIBILITY_SECONDS),
        "MessageRetentionPeriod": str(RETENTION_SECONDS),
    }
    if dead_letter_queue_arn:
        redrive = {"deadLetterTargetArn": dead_letter_queue_arn, "maxReceiveCount": MAX_RECEIVES}
        wanted["RedrivePolicy"] = json.dumps(redrive)
    return wanted


def send(messages: Iterable[tuple[str, TargetMessage]]) -> None:
    """Sends each message to its queue's URL, in batches, several requests at a time.

    Raises SendFailed if SQS refused some of them; the others are on their way.
    """
    by_queue: dict[str, list[TargetMessage]] = defaultdict(list)
    for url, message in messages:
        by_queue[url].append(message)
    batches = [
        (url, batch) for url, queue in by_queue.items() for batch in split_into_batches(queue)
    ]
    if len(batches) == 1:  # A thread pool costs more than a request.
        _send_batch(*batches[0])
        return
    with ThreadPoolExecutor(_SENDERS) as pool:
        for sent in [pool.submit(_send_batch, *batch) for batch in batches]:
            sent.result()


@retry(
    retry=retry_if_exception_type(SendFailed),
    wait=wait_exponential_jitter(multiplier=0.1, max=2),
    stop=stop_after_attempt(5),
    reraise=True,
)
def _send_batch(url: str, messages: list[TargetMessage]) -> None:
    """Sends up to ten messages to one queue, and sends those again that SQS refused.

    The list keeps only the messages that are not sent yet.
    """
    entries = [
        {"Id": str(index), "MessageBody": msgspec.json.encode(message).decode()}
        for index, message in enumerate(messages)
    ]
    answer = client("sqs").send_message_batch(QueueUrl=url, Entries=entries)
    refused = answer.get("Failed", [])
    messages[:] = [messages[int(entry["Id"])] for entry in refused]
    if refused:
        raise SendFailed(f"SQS refused {len(refused)} messages, the first as {refused[0]['Code']}")


def receive(url: str, at_most: int, wait_seconds: int) -> list[Received]:
    """Up to `at_most` (1–10) messages, as soon as there is one; none after that many seconds (0–20)."""
    answer = client("sqs", wait_seconds + ANSWER_SECONDS).receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=at_most,
        WaitTimeSeconds=wait_seconds,
        VisibilityTimeout=VISIBILITY_SECONDS,
        MessageSystemAttributeNames=["ApproximateReceiveCount"],
    )
    messages = [_decode(message) for message in answer.get("Messages", [])]
    return [message for message in messages if message]


def _decode(message: dict[str, Any]) -> Received | None:
    target = decode(message["Body"])
    if target is None:  # Nobody deletes the message, so it ends in the dead-letter queue.
        return None
    first = message["Attributes"]["ApproximateReceiveCount"] == "1"
    return Received(target, message["MessageId"], message["ReceiptHandle"], first)


def decode(body: str) -> TargetMessage | None:
    """The message in the body; None if it is not one of ours."""
    return _parse(body, TargetMessage)


def decode_ended(body: str) -> EndedMessage | None:
    """The same for the queue of executions that may be over."""
    return _parse(body, EndedMessage)


def _parse(body: str, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        log.warning("message not understood", body=body[:1000], error=str(error))
        return None


def delete(url: str, receipt: str) -> None:
    """Deletes a message from its queue."""
    client("sqs").delete_message(QueueUrl=url, ReceiptHandle=receipt)


def delete_batch(url: str, receipts: list[str]) -> list[str]:
    """Deletes up to ten messages; returns the codes with which SQS refused some of them."""
    entries = [
        {"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)
    ]
    answer = client("sqs").delete_message_batch(QueueUrl=url, Entries=entries)
    return [entry["Code"] for entry in answer.get("Failed", [])]


def report_ended(job_id: str, executor_id: str) -> None:
    """Says that the execution may be over. If there is no queue for that, it does nothing."""
    if settings.ended_queue_url:
        body = msgspec.json.encode(EndedMessage(job_id, executor_id)).decode()
        client("sqs").send_message(QueueUrl=settings.ended_queue_url, MessageBody=body)


def hold(url: str, receipts: list[str], seconds: int = VISIBILITY_SECONDS) -> list[str]:
    """Keeps up to ten messages invisible for this many more seconds (0: makes them visible at once).

    Returns the codes with which SQS refused some of them, such as for a receipt that no longer counts.
    """
    entries = [
        {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
        for index, receipt in enumerate(receipts)
    ]
    answer = client("sqs").change_message_visibility_batch(QueueUrl=url, Entries=entries)
    return [entry["Code"] for entry in answer.get("Failed", [])]


def count_waiting(url: str) -> int:
    """About how many messages wait on the queue, in nobody's hands."""
    name = "ApproximateNumberOfMessages"
    answer = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(answer["Attributes"][name])


def split_into_batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    """The items in lists of as many as SQS takes at once."""
    iterator = iter(items)
    while batch := list(islice(iterator, MAX_BATCH)):
        yield batch
