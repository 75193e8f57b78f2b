"""Which limit comes first, and at what rate of starts; then, with that limit raised, the next one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from simulate.model import Model
from simulate.stack import (
    BATCHES,
    FUNCTIONS,
    GATEWAY,
    KMS,
    NODE_PROCESSOR,
    PUTS,
    TABLE_READS,
    TABLE_WRITES,
    Setup,
)
from simulate.steps import Fanout

# A rate is tried for so many starts, and for so many seconds at the least.
_STARTS, _LEAST_SECONDS = 20, 4.0
_FIRST_RATE = 1.0
# The search ends when the busiest resource is asked for this part of what it takes, give or take.
_CLOSE = 0.05
_MOST_TRIES = 4
MOST_LIMITS = 4
# How many times a limit is raised to see the next one.
_RAISE = 10

Change = Callable[[Setup], Setup]


class Remedy(NamedTuple):
    """What raises a limit, in words and in the model."""

    words: str
    change: Change


@dataclass(frozen=True)
class Reached:
    """A limit, and at how many starts a second it is reached."""

    name: str
    rate: float
    # What raises it; "nothing" if it is fixed.
    remedy: str


def _raised(name: str) -> Change:
    def change(setup: Setup) -> Setup:
        higher = {name: type(getattr(setup.limits, name))(getattr(setup.limits, name) * _RAISE)}
        return replace(setup, limits=replace(setup.limits, **higher))

    return change


def _more_cores(setup: Setup) -> Setup:
    cores = setup.costs.node_cores * _RAISE
    return replace(setup, costs=replace(setup.costs, node_cores=cores))


# By the beginning of a resource's name. What is not here cannot be raised: a partition key.
_REMEDIES = {
    GATEWAY: Remedy("ThrottleRate", _raised("gateway_rate")),
    FUNCTIONS: Remedy("Lambda's quota of concurrent executions", _raised("concurrency")),
    BATCHES: Remedy("Lambda does it by itself, in minutes", _raised("batches_of_a_queue")),
    TABLE_WRITES: Remedy("warm throughput, or some minutes of such load", _raised("table_writes")),
    TABLE_READS: Remedy("warm throughput, or some minutes of such load", _raised("table_reads")),
    PUTS: Remedy("S3 does it by itself, in minutes", _raised("puts")),
    KMS: Remedy("KMS's quota of requests", _raised("kms")),
    NODE_PROCESSOR: Remedy("more cores, or more nodes", _more_cores),
}


def find_limits(setup: Setup, fanout: Fanout, nodes: int, jobs: int) -> Iterator[Reached]:
    """The limits in the order in which they come, each with those before it raised."""
    for _ in range(MOST_LIMITS):
        name, rate = _find_first(setup, fanout, nodes, jobs)
        remedy = next((_REMEDIES[kind] for kind in _REMEDIES if name.startswith(kind)), None)
        yield Reached(name, rate, remedy.words if remedy else "nothing")
        if remedy is None:
            return
        setup = remedy.change(setup)


def _find_first(setup: Setup, fanout: Fanout, nodes: int, jobs: int) -> tuple[str, float]:
    """The resource that is full first, and the rate at which it is."""
    rate = _FIRST_RATE
    for _ in range(_MOST_TRIES):
        name, share = busiest_at(rate, setup, fanout, nodes, jobs)
        rate /= share
        if abs(share - 1) < _CLOSE:
            break
    return name, rate


def busiest_at(
    rate: float, setup: Setup, fanout: Fanout, nodes: int, jobs: int
) -> tuple[str, float]:
    """The resource of which the most is asked at that rate of starts, and which part of what it takes.

    More than 1: it is asked for more than it takes.
    """
    starts = max(round(rate * _LEAST_SECONDS), _STARTS)
    # What the gateway refuses asks nothing of the others.
    everything = replace(setup, limits=replace(setup.limits, gateway_burst=starts))
    model = Model(everything, fanout, nodes, jobs)
    for number in range(starts):
        model.start(number / rate)
    model.loop.run()
    shares = model.stack.busiest(starts / rate)
    name = max(shares, key=lambda kind: shares[kind])
    return name, shares[name]
