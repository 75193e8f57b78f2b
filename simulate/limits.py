"""What AWS takes: its quotas and the limits of a partition key, as they are in 2026-11.

Sources: Amazon's developer guides of DynamoDB (throughput of on-demand tables, warm throughput), Lambda
(scaling of SQS event sources, quotas), SQS and S3 (request rates). KMS's quota depends on the region.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of one account. Those of a key are fixed, the others can be raised."""

    # Requests that the gateway takes: our own ThrottleRate and ThrottleBurst.
    gateway_rate: float = 50
    gateway_burst: float = 100
    # Runs of functions at the same time. A new account has 10.
    concurrency: int = 1000
    # Units a second that one partition key takes.
    key_writes: float = 1000
    key_reads: float = 3000
    # Units a second that a new on-demand table takes. It doubles with each new peak, within half an hour.
    table_writes: float = 4000
    table_reads: float = 12_000
    # S3's PUTs a second for one prefix, before it splits the prefix.
    puts: float = 3500
    # KMS's requests a second.
    kms: float = 10_000
    # How many batches of a queue run at the same time when it becomes busy.
    batches_of_a_queue: int = 5


NEW_ACCOUNT = Limits(concurrency=10)
# A table that has seen such peaks, or whose warm throughput was set: up to the quota of a table.
WARM_WRITES, WARM_READS = 40_000, 40_000
