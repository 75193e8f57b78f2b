"""Makes the boto3 clients: one per service and process, made when first needed."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

# Timeouts are short beside a message's visibility, so that a stuck call is retried while we hold it.
# A long poll answers within 20 s, hence the read timeout above that.
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=64,
    retries={"mode": "standard", "total_max_attempts": 5},
    tcp_keepalive=True,
    # Links to logs need it: the older signature covers no response headers.
    signature_version="v4",
)


@cache
def client(service: str) -> Any:
    """The process's client of an AWS service; safe to use from several threads."""
    return boto3.client(service, config=_CONFIG)
