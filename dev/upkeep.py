"""Plays the schedule and the trigger of the dead-letter queue on a local AWS: `python -m dev.upkeep`.

On AWS, EventBridge and SQS call the functions of app.py; here this process calls the same service.
UPKEEP_SECONDS says how often upkeep has a turn (60).
"""

import os
import signal
import threading
import time
from collections.abc import Callable

import structlog

from chalicelib import telemetry
from chalicelib.clients.aws import client
from chalicelib.config import read_whole_number, settings
from chalicelib.services import upkeep

log = structlog.stdlib.get_logger("upkeep")

_POLL_SECONDS = 5


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    telemetry.configure(settings.log_level)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    interval = read_whole_number(os.environ, "UPKEEP_SECONDS", 60)
    queue_url = _dead_letter_queue()
    due = 0.0
    while not ended.is_set():
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            _attempt(upkeep.take_turn)
        _attempt(lambda: _end_dead_letters(queue_url, min(_POLL_SECONDS, interval)))


def _dead_letter_queue() -> str:
    name = settings.dead_letter_queue_arn.rpartition(":")[2]
    return str(client("sqs").get_queue_url(QueueName=name)["QueueUrl"])


def _attempt(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:  # AWS may be away for a while; the next turn tries again
        log.exception("upkeep failed")
        time.sleep(1)


def _end_dead_letters(queue_url: str, seconds: int) -> None:
    answer = client("sqs", 20).receive_message(QueueUrl=queue_url, WaitTimeSeconds=seconds)
    for message in answer.get("Messages", []):
        upkeep.end_dead_letter(message["Body"])
        client("sqs").delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
