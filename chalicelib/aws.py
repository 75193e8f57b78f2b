"""Makes the boto3 clients: one per service and process, made when first needed."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

# A call that hangs is given up after so many seconds and tried again: all tries together (botocore waits
# between them, with jitter) take less than the 60 s for which a message is ours unless we extend it.
CONNECT_SECONDS = 3
ANSWER_SECONDS = 10
TRIES = 4


@cache
def client(service: str, answer_seconds: int = ANSWER_SECONDS) -> Any:
    """The process's client of an AWS service; safe to use from several threads."""
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=answer_seconds,
        max_pool_connections=64,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        tcp_keepalive=True,
        # Links to logs need it: the older signature covers no response headers.
        signature_version="v4",
    )
    return boto3.client(service, config=config)
