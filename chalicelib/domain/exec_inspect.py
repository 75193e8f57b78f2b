"""An engine's inspect of an exec, without what follows from the execution and the result. Pure.

A thousand results of one execution repeat its command, and each repeats its own ids. Stored is only
how an inspect differs from the one that we expect, so that reading a thousand states stays cheap.
`restore` brings back exactly what the engine said. For that, `expect` must make the same of what is
stored as long as results are kept.
"""

from typing import Any

import msgspec

Inspect = dict[str, Any]

# The names of the expected keys that the engine did not send. No key of an engine is empty.
_WITHOUT = ""


def expect(
    exec_id: str, container_id: str, words: list[str], user: str, privileged: bool
) -> Inspect:
    """What engines say of an exec that is over, but for its exit code and its process."""
    program, *arguments = words
    return {
        "ID": exec_id,
        "Running": False,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": privileged,
            **({"user": user} if user else {}),
        },
        "OpenStdin": False,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": container_id,
        "DetachKeys": "",
    }


def shorten(inspect: Inspect, expected: Inspect) -> Inspect:
    """How the inspect differs from the expected one."""
    short = {
        key: _shorten_value(value, expected.get(key))
        for key, value in inspect.items()
        if key not in expected or not _is_same(value, expected[key])
    }
    missing = [key for key in expected if key not in inspect]
    return {**short, **({_WITHOUT: missing} if missing else {})}


def restore(short: Inspect, expected: Inspect) -> Inspect:
    """The inverse of `shorten`."""
    missing = short.get(_WITHOUT, [])
    kept = {key: value for key, value in expected.items() if key not in missing}
    changed = {
        key: _restore_value(value, expected.get(key))
        for key, value in short.items()
        if key != _WITHOUT
    }
    return kept | changed


def _shorten_value(value: Any, expected: Any) -> Any:
    return shorten(value, expected) if _are_objects(value, expected) else value


def _restore_value(value: Any, expected: Any) -> Any:
    return restore(value, expected) if _are_objects(value, expected) else value


def _are_objects(value: Any, expected: Any) -> bool:
    return isinstance(value, dict) and isinstance(expected, dict)


def _is_same(value: Any, expected: Any) -> bool:
    """Whether they are the same as JSON: to Python, 1 and True are equal."""
    return msgspec.json.encode(value) == msgspec.json.encode(expected)
