"""Plays the schedule and the triggers of the queues on a local AWS: `python -m dev.upkeep`.

On AWS, EventBridge and SQS call the functions of app.py; here this process calls the same services.
UPKEEP_SECONDS says how often upkeep has a turn (60).
"""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from chalicelib import telemetry
from chalicelib.clients.aws import client
from chalicelib.clients.queues import MAX_BATCH
from chalicelib.config import read_whole_number, settings
from chalicelib.services import closing, upkeep

log = structlog.stdlib.get_logger("upkeep")

_POLL_SECONDS = 2
_ANSWER_SECONDS = 30
Messages = list[dict[str, Any]]


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    telemetry.configure(settings.log_level)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    interval = read_whole_number(os.environ, "UPKEEP_SECONDS", 60)
    name = settings.dead_letter_queue_arn.rpartition(":")[2]
    dead_letters = str(client("sqs").get_queue_url(QueueName=name)["QueueUrl"])
    parts = [
        threading.Thread(target=_repeat, args=(step, pause, over))
        for step, pause in [
            (upkeep.take_turn, interval),
            (partial(_serve_queue, dead_letters, end_dead_letters), 0),
            (partial(_serve_queue, settings.ended_queue_url, close_executions), 0),
        ]
    ]
    for part in parts:
        part.start()
    # If this process ended in the middle of a poll, the queue could still give it a message. Nobody else
    # would get that for a minute.
    for part in parts:
        part.join()


def _repeat(step: Callable[[], None], pause_seconds: int, over: threading.Event) -> None:
    while not over.is_set():
        try:
            step()
        except Exception:  # AWS may be away for a while; the next turn tries again
            log.exception("upkeep failed")
            over.wait(1)
        over.wait(pause_seconds)


def _serve_queue(url: str, handle: Callable[[Messages], list[str]]) -> None:
    """Hands over the messages that come next, and deletes those that need not come again."""
    answer = client("sqs", _ANSWER_SECONDS).receive_message(
        QueueUrl=url, WaitTimeSeconds=_POLL_SECONDS, MaxNumberOfMessages=MAX_BATCH
    )
    messages = answer.get("Messages", [])
    again = handle(messages) if messages else []
    for message in messages:
        if message["MessageId"] not in again:
            client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def end_dead_letters(messages: Messages) -> list[str]:
    """Does what the function of that name does."""
    for message in messages:
        upkeep.end_dead_letter(message["Body"])
    return []


def close_executions(messages: Messages) -> list[str]:
    """The same; returns the ids of the messages that have to come again."""
    return closing.close_ended({message["MessageId"]: message["Body"] for message in messages})


if __name__ == "__main__":
    main()
