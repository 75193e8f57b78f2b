"""Reads items that never change once they are written: what is found is right, however old it is."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from pynamodb.exceptions import DoesNotExist
from pynamodb.models import Model

_M = TypeVar("_M", bound=Model)
_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


def find(model: type[_M], hash_key: str, range_key: Any) -> _M | None:
    """The item with this key; None if there is none.

    A read that may miss what was written in the last second costs half. It misses seldom.
    """
    for consistently in (False, True):
        try:
            return model.get(hash_key, range_key, consistent_read=consistently)
        except DoesNotExist:
            continue
    return None


def find_all(
    keys: Iterable[_Key], read: Callable[[Collection[_Key], bool], Mapping[_Key, _Found]]
) -> dict[_Key, _Found]:
    """What there is of these keys. Only what a cheap read misses is read at the full price.

    `read` returns what it finds of some keys; the switch says whether it reads consistently.
    """
    wanted = set(keys)
    found: dict[_Key, _Found] = {}
    for consistently in (False, True):
        if missing := wanted - found.keys():
            found |= read(missing, consistently)
    return found
