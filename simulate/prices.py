"""AWS's list prices in dollars, and the function that prices a usage. No other file has a price.

They are those of us-east-1 in November 2026, without free tiers and discounts for volume. Sources:
Amazon's own price pages, quoted by
- "Amazon DynamoDB Pricing" (Airbyte, 2025: since November 2024 $0.625 and $0.125 per million units);
- "Amazon SQS Pricing" (CloudBurn, March 2026: $0.40 per million requests, standard queues);
- Amazon's whitepaper on private APIs (REST API: $3.50 per million, the first 333 million of a month);
- "Understanding AWS Pricing" (Appropri8, December 2025: Lambda $0.20 per million and $0.0000166667
  per GB-second).
Not found in a second source, so taken as they are widely known: S3, KMS, CloudWatch.
"""

from simulate.usage import (
    FUNCTION_GB_SECONDS,
    FUNCTION_RUNS,
    GATEWAY_REQUESTS,
    INDEX_UNITS,
    OBJECT_GB_MONTHS,
    READ_UNITS,
    TABLE_GB_MONTHS,
    WRITE_UNITS,
    Usage,
)

DATE = "2026-11"
REGION = "us-east-1"
_MILLION = 1_000_000

_WRITE_UNIT = 0.625 / _MILLION
_READ_UNIT = 0.125 / _MILLION
_PUT = 5.00 / _MILLION
# DynamoDB bills units, not requests.
_NOTHING = 0.0

# By service, what one of each costs.
PRICES: dict[str, dict[str, float]] = {
    "DynamoDB": {
        WRITE_UNITS: _WRITE_UNIT,
        INDEX_UNITS: _WRITE_UNIT,
        READ_UNITS: _READ_UNIT,
        "GetItem": _NOTHING,
        "BatchGetItem": _NOTHING,
        "Query": _NOTHING,
        "PutItem": _NOTHING,
        "UpdateItem": _NOTHING,
        "TransactWriteItems": _NOTHING,
        TABLE_GB_MONTHS: 0.25 + 0.20,  # with point-in-time recovery
    },
    "SQS": dict.fromkeys(
        (
            "SendMessage",
            "SendMessageBatch",
            "ReceiveMessage",
            "DeleteMessage",
            "DeleteMessageBatch",
            "ChangeMessageVisibilityBatch",
            "GetQueueAttributes",
        ),
        0.40 / _MILLION,
    ),
    "S3": {
        "PutObject": _PUT,
        "CreateMultipartUpload": _PUT,
        "UploadPart": _PUT,
        "UploadPartCopy": _PUT,
        "CompleteMultipartUpload": _PUT,
        "GetObject": 0.40 / _MILLION,
        OBJECT_GB_MONTHS: 0.023,
    },
    "KMS": {"Encrypt": 3.00 / _MILLION, "Decrypt": 3.00 / _MILLION, "KeyMonths": 1.00},
    "Lambda": {FUNCTION_RUNS: 0.20 / _MILLION, FUNCTION_GB_SECONDS: 0.0000166667},
    "API Gateway": {GATEWAY_REQUESTS: 3.50 / _MILLION},
    "CloudWatch": {"AlarmMonths": 0.10},
}


def price_by_service(usage: Usage) -> dict[str, float]:
    """What it costs, in dollars. Raises KeyError for something that has no price here."""
    total = dict.fromkeys(PRICES, 0.0)
    for name, number in usage.items():
        service = _SERVICES[name]
        total[service] += PRICES[service][name] * number
    return total


def price(usage: Usage) -> float:
    """The same, all together."""
    return sum(price_by_service(usage).values())


_SERVICES = {name: service for service, prices in PRICES.items() for name in prices}
