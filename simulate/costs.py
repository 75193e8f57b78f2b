"""How long things take: what was measured, and what is assumed of AWS.

The processor's time was measured on 2 cores (2026-11), with calls to MiniStack. AWS's latencies cannot be
measured without AWS: they are what its services usually take within a region.
"""

from dataclasses import dataclass

# A function gets a share of a core by its memory: all of one with 1,769 MB.
CORE_MEGABYTES = 1769


@dataclass(frozen=True)
class Costs:
    """Seconds of a processor's time, and seconds that a call to a service takes."""

    # The API, without what follows: routing, checks, the transaction, the answer.
    api_cpu: float = 0.012
    # Per node that it reads, per part that it writes, per request to SQS.
    api_cpu_per_node: float = 0.000_07
    api_cpu_per_part: float = 0.000_6
    api_cpu_per_send: float = 0.001_5
    # Closing: a batch, and each execution of it.
    closing_cpu: float = 0.005
    closing_cpu_per_execution: float = 0.002
    # A target: its worker, and the engine with all that it starts (create, start, inspect of an exec).
    worker_cpu: float = 0.020
    engine_cpu: float = 0.049
    # A node's processor.
    node_cores: float = 2.0
    # One exec alone: from create to its exit code.
    exec_seconds: float = 0.1
    # AWS within a region.
    read_seconds: float = 0.005
    write_seconds: float = 0.008
    transact_seconds: float = 0.020
    sqs_seconds: float = 0.010
    # From a message's arrival to the worker's long poll.
    deliver_seconds: float = 0.020
    put_object_seconds: float = 0.040
    kms_seconds: float = 0.010
    # Gateway, authorizer from its cache, and the start of a function that is warm.
    invoke_seconds: float = 0.015
    # If all of it runs on one machine, everybody shares that machine's cores. 0: it does not.
    shared_cores: float = 0.0
    # What AWS's own processes take of them for a call.
    aws_cpu_per_call: float = 0.0


AWS = Costs()
# MiniStack, API and workers on this machine. Its long polls look every 100 ms.
LOCAL = Costs(
    read_seconds=0.003,
    write_seconds=0.003,
    transact_seconds=0.006,
    sqs_seconds=0.003,
    deliver_seconds=0.045,
    put_object_seconds=0.005,
    kms_seconds=0.002,
    invoke_seconds=0.0,
    shared_cores=2.0,
    aws_cpu_per_call=0.0015,
)
