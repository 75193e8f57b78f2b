"""What the requests for a page have in common."""

from typing import Annotated

import msgspec
from msgspec import Meta

from chalicelib.domain.errors import InvalidRequest

DEFAULT_LIMIT = 100
PageSize = Annotated[int, Meta(ge=1, le=1000)]
WRONG_NEXT = "Next must be exactly the Next of the page before"


def encode_next(key: tuple[str, ...] | None) -> str | None:
    """Where the page after this one begins, as a text that goes into a URL; None: there is none."""
    if key is None:
        return None
    return msgspec.json.encode(key).hex()


def decode_next(text: str, parts: int) -> tuple[str, ...]:
    """The key that `encode_next` was given. Raises InvalidRequest for what no page has."""
    try:
        key = msgspec.json.decode(bytes.fromhex(text), type=tuple[str, ...])
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(WRONG_NEXT) from None
    # DynamoDB refuses to look for a longer or an empty key.
    if len(key) != parts or not all(0 < len(part.encode()) <= 1024 for part in key):
        raise InvalidRequest(WRONG_NEXT)
    return key
