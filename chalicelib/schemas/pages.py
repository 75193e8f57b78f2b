"""What the requests for a page have in common."""

from typing import Annotated

import msgspec
from msgspec import Meta

from chalicelib.domain.errors import InvalidRequest
from chalicelib.domain.ids import JobKey

DEFAULT_LIMIT = 100
PageSize = Annotated[int, Meta(ge=1, le=1000)]
WRONG_NEXT = "Next must be exactly the Next of the page before"


def encode_next(key: JobKey | None) -> str | None:
    """Where the page after this one begins, as a text that goes into a URL; None: there is none."""
    if key is None:
        return None
    return msgspec.json.encode(key).hex()


def decode_next(text: str) -> JobKey:
    """The key that `encode_next` was given. Raises InvalidRequest for what no page has."""
    try:
        key = msgspec.json.decode(bytes.fromhex(text), type=JobKey)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(WRONG_NEXT) from None
    # DynamoDB refuses to look for a longer or an empty key.
    if not all(0 < len(part.encode()) <= 1024 for part in key):
        raise InvalidRequest(WRONG_NEXT)
    return key
