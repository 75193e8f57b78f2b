"""Makes the boto3 clients: one per service and process, made when first needed."""

from functools import cache
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config

# A call that hangs is given up after these seconds and tried again. All tries together (botocore waits
# between them, with jitter) take less than the 60 s for which a message is ours unless we extend it.
CONNECT_SECONDS = 3
ANSWER_SECONDS = 10
TRIES = 4


_making = Lock()


def client(service: str, answer_seconds: int = ANSWER_SECONDS) -> Any:
    """The process's client of an AWS service; safe to use from several threads."""
    # Making a client is not thread-safe and takes 10 MB: threads that need the same one wait for it.
    with _making:
        return make_client(service, answer_seconds)


@cache
def make_client(service: str, answer_seconds: int) -> Any:
    """Makes a client; the cache keeps it for the next call with the same arguments."""
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=answer_seconds,
        max_pool_connections=64,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        tcp_keepalive=True,
        # Links to logs need both. The older signature covers no response headers. And for a new bucket,
        # S3's global address redirects to a region for which the link is not signed.
        signature_version="v4",
        s3={"addressing_style": "virtual"},
    )
    return boto3.client(service, config=config)
