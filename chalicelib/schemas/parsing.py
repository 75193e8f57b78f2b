"""Reads requests into their shapes, and says in our words what is wrong with them."""

import codecs
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from chalicelib.domain.errors import InvalidRequest

_MISSING = re.compile(r"Object missing required field `(\w+)`")
T = TypeVar("T", bound=Struct)


def parse_query(parameters: Mapping[str, str], shape: type[T]) -> T:
    """The request that the query string holds; empty values mean the same as absent ones.

    Raises InvalidRequest, which says which parameter is wrong and what would be right.
    """
    given = {name: value for name, value in parameters.items() if value}
    try:
        request = msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_in_our_words(error)) from None
    request.check()  # type: ignore[attr-defined]
    return request


def parse(body: bytes, shape: type[T]) -> T:
    """The request that the body holds.

    Raises InvalidRequest, which says which field is wrong and what would be right.
    """
    try:
        request = msgspec.json.decode(_known(body, shape), type=shape)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(_in_our_words(error)) from None
    request.check()  # type: ignore[attr-defined]
    return request


def _known(body: bytes, shape: type[Struct]) -> bytes:
    """The body with only the keys that the shape has, and without nulls, which mean absent.

    The values of other keys are not read, so they may hold a number that is too large for us.
    """
    text = body.removeprefix(codecs.BOM_UTF8)
    text.decode()  # raises if it is not UTF-8: msgspec does not check the values that it skips
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    names = given.keys() & set(shape.__struct_fields__)
    return msgspec.json.encode(
        {name: given[name] for name in names if bytes(given[name]) != b"null"}
    )


def _in_our_words(error: Exception) -> str:
    """The message of msgspec, with the path as the API spells it: `Env[3]` for `$.Env[...]`."""
    if isinstance(error, msgspec.ValidationError):
        text, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        if missing := _MISSING.fullmatch(text):
            return f"{'.'.join(filter(None, (field, missing[1])))} is required"
        return f"{field}: {text}" if field else text
    return f"the body is not valid JSON in UTF-8: {error}"
