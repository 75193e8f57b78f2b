"""The resources that API, functions and workers share, and what was asked of them."""

from collections import Counter
from dataclasses import dataclass, field

from simulate.costs import CORE_MEGABYTES, Costs
from simulate.limits import Limits
from simulate.loop import Bucket, Loop, Places, Server
from simulate.usage import Usage, count_requests

# The kinds of resources. A table's name follows after the first four.
TABLE_WRITES, TABLE_READS = "DynamoDB, writes of table ", "DynamoDB, reads of table "
KEY_WRITES, KEY_READS = "DynamoDB, writes of one key of ", "DynamoDB, reads of one key of "
GATEWAY = "API Gateway's throttle"
FUNCTIONS = "Lambda, functions at once"
BATCHES = "Lambda, batches of one queue"
PUTS = "S3, PUTs of one prefix"
KMS = "KMS, requests"
NODE_PROCESSOR = "the processor of a node"
_SHARED_PROCESSOR = "the processor of all"


@dataclass(frozen=True)
class Setup:
    """What is simulated: limits, costs, the functions' memory, and how long each command runs."""

    limits: Limits = field(default_factory=Limits)
    costs: Costs = field(default_factory=Costs)
    command_seconds: float = 0.0
    api_megabytes: int = 512
    closing_megabytes: int = 512


class Stack:
    """AWS with our tables, queues and functions in it. What waits is a number of seconds to yield."""

    def __init__(self, loop: Loop, setup: Setup) -> None:
        self.loop = loop
        self.setup = setup
        self.usage: Counter[str] = Counter()
        limits = setup.limits
        self.gateway = Bucket(loop, GATEWAY, limits.gateway_rate, limits.gateway_burst)
        self.functions = Places(loop, FUNCTIONS, limits.concurrency)
        self.closers = Places(loop, BATCHES, limits.batches_of_a_queue)
        self._servers: dict[tuple[str, str], Server] = {}

    def count(self, usage: Usage) -> None:
        """Notes what was asked."""
        self.usage.update(usage)
        if self.setup.costs.shared_cores:
            calls = count_requests(usage).total()
            self.compute("", calls * self.setup.costs.aws_cpu_per_call, 1)

    def compute(self, node: str, seconds: float, cores: float) -> float:
        """Waits for a processor: that of the node, or the one that all share."""
        shared = self.setup.costs.shared_cores
        kind, name = (_SHARED_PROCESSOR, "") if shared else (NODE_PROCESSOR, node)
        return self.serve(kind, name, shared or cores, seconds)

    def compute_in_function(self, seconds: float, megabytes: int) -> float:
        """Waits for the processor of one run of a function: its share of a core is its own."""
        if self.setup.costs.shared_cores:
            return self.compute("", seconds, 1)
        return seconds * CORE_MEGABYTES / min(megabytes, CORE_MEGABYTES)

    def write(self, table: str, key: str, units: float) -> float:
        """Waits until the table and its partition key have taken the units."""
        limits = self.setup.limits
        return max(
            self.serve(KEY_WRITES + table, key, limits.key_writes, units),
            self.serve(TABLE_WRITES + table, "", limits.table_writes, units),
        )

    def read(self, table: str, key: str, units: float) -> float:
        """The same for reads."""
        limits = self.setup.limits
        return max(
            self.serve(KEY_READS + table, key, limits.key_reads, units),
            self.serve(TABLE_READS + table, "", limits.table_reads, units),
        )

    def serve(self, kind: str, name: str, rate: float, units: float) -> float:
        """Waits for the resource of that kind and name, which is made when it is first needed."""
        server = self._servers.get((kind, name))
        if server is None:
            server = self._servers[kind, name] = Server(self.loop, kind, rate)
        return server.serve(units)

    def busiest(self, seconds: float) -> dict[str, float]:
        """By kind: which part of what it could take in that time was asked of the busiest one."""
        shares = {
            self.gateway.name: (self.gateway.taken + self.gateway.refused) / self.gateway.rate,
            self.functions.name: self.functions.busy_seconds / self.functions.places,
            self.closers.name: self.closers.busy_seconds / self.closers.places,
        }
        for (kind, _), server in self._servers.items():
            shares[kind] = max(shares.get(kind, 0), server.served / server.rate)
        return {kind: share / seconds for kind, share in shares.items()}
