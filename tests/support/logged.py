"""What is stored of a log, wherever it is: for tests that do not care."""

from typing import Any

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.segments import total


def stored_objects(prefix: str) -> dict[str, int]:
    """The objects in the bucket whose keys begin so, with their sizes."""
    answer: Any = client("s3").list_objects_v2(Bucket=settings.log_bucket, Prefix=prefix)
    return {each["Key"]: int(each["Size"]) for each in answer.get("Contents", [])}


def logged(log: str) -> bytes:
    """All that is stored of a log: the largest whole of it or, if they have more, its segments."""
    _, spans = store.segments.list_segments(log)
    whole = max(stored_objects(f"logs/{log}/").values(), default=0)
    if whole >= total(spans):
        return logs.read(logs.whole_key(log, whole), whole) or b""
    return logs.read_segments(log, spans)
