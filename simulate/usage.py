"""What is asked of AWS, counted: requests by the operation's name, and the units that AWS bills.

A usage is a plain mapping, such as `{"ReceiveMessage": 3, WRITE_UNITS: 2}`.
"""

from collections import Counter
from collections.abc import Mapping

Usage = Mapping[str, float]

# A write unit writes 1 KB; in a transaction, it takes two. A read unit reads 4 KB, or 8 KB eventually.
WRITE_UNITS = "WriteUnits"
READ_UNITS = "ReadUnits"
# What a write of a table costs in its indexes, in write units.
INDEX_UNITS = "IndexWriteUnits"
# One run of a function, and its memory times its time.
FUNCTION_RUNS = "FunctionRuns"
FUNCTION_GB_SECONDS = "FunctionGigabyteSeconds"
# One request through the gateway.
GATEWAY_REQUESTS = "GatewayRequests"
# A gigabyte that is kept for a month, in a table or in the bucket.
TABLE_GB_MONTHS = "TableGigabyteMonths"
OBJECT_GB_MONTHS = "ObjectGigabyteMonths"

_NO_REQUESTS = {
    WRITE_UNITS,
    READ_UNITS,
    INDEX_UNITS,
    FUNCTION_RUNS,
    FUNCTION_GB_SECONDS,
    GATEWAY_REQUESTS,
    TABLE_GB_MONTHS,
    OBJECT_GB_MONTHS,
}


def count_requests(usage: Usage) -> Counter[str]:
    """Only the requests, by operation; none of which there is none."""
    return +Counter({name: round(usage[name]) for name in usage.keys() - _NO_REQUESTS})


def add(*usages: Usage) -> Usage:
    """All of them together."""
    total: Counter[str] = Counter()  # it adds halves too
    for usage in usages:
        total.update(usage)
    return total


def times(count: float, usage: Usage) -> Usage:
    """The usage, so many times."""
    return {name: count * number for name, number in usage.items()}
