"""Items of the tables as plain text: what one version stored, for tests of the next."""

import base64
import json
from pathlib import Path
from typing import Any

import boto3

from chalicelib.config import settings

Items = dict[str, list[dict[str, Any]]]


def read_all() -> Items:
    """All items, by the names of their tables without the prefix."""
    dynamodb = boto3.client("dynamodb")
    return {
        name.removeprefix(f"{settings.prefix}-"): dynamodb.scan(TableName=name)["Items"]
        for name in dynamodb.list_tables()["TableNames"]
    }


def write_all(items: Items) -> None:
    """Stores items as they were stored."""
    dynamodb = boto3.client("dynamodb")
    for table, stored in items.items():
        for item in stored:
            dynamodb.put_item(TableName=f"{settings.prefix}-{table}", Item=item)


def save(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, default=_encode) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"), object_hook=_decode))


def _encode(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _decode(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if set(value) == {"base64"} else value
