"""What is stored of an engine's inspect, and what readers get of it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.exec_inspect import expect, restore, shorten

EXEC, CONTAINER = "e" * 64, "c" * 64
EXPECTED = expect(EXEC, CONTAINER, ["sh", "-c", "echo hi", "***"], "1000", privileged=False)
# As Docker 20.10 and 28.5 answer.
SAID = {
    "ID": EXEC,
    "Running": False,
    "ExitCode": 0,
    "ProcessConfig": {
        "tty": False,
        "entrypoint": "sh",
        "arguments": ["-c", "echo hi", "***"],
        "privileged": False,
        "user": "1000",
    },
    "OpenStdin": False,
    "OpenStderr": True,
    "OpenStdout": True,
    "CanRemove": False,
    "ContainerID": CONTAINER,
    "DetachKeys": "",
    "Pid": 27396,
}

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
names = st.text(min_size=1, max_size=3)
# Objects of an engine: some of their keys and values are as we expect them, others are not.
anything = st.recursive(
    leaves | st.sampled_from([[], ["-c"], "sh", EXEC]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)
keys = st.sampled_from([*SAID, *EXPECTED["ProcessConfig"]]) | names
process = st.dictionaries(keys, anything, max_size=4)
inspects = st.dictionaries(keys, anything | process, max_size=6)


def test_only_the_exit_code_and_the_process_are_stored() -> None:
    assert shorten(SAID, EXPECTED) == {"ExitCode": 0, "Pid": 27396}


def test_a_long_command_costs_nothing() -> None:
    words = ["sh", "-c", "x" * 4000]
    said: dict[str, Any] = {**SAID, "ProcessConfig": {**SAID["ProcessConfig"]}}  # type: ignore[dict-item]
    said["ProcessConfig"]["arguments"] = words[1:]
    short = shorten(said, expect(EXEC, CONTAINER, words, "", privileged=False))
    assert len(json.dumps(short)) < 100


def test_nothing_of_the_engine_is_guessed() -> None:
    """An engine that leaves keys out, or says something else, is believed."""
    said = {"ID": "other", "ExitCode": 1, "ProcessConfig": {"tty": True}}
    assert restore(shorten(said, EXPECTED), EXPECTED) == said


@given(inspects | st.just(SAID))
def test_readers_get_exactly_what_the_engine_said(said: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(shorten(said, EXPECTED)))
    assert json.dumps(restore(stored, EXPECTED), sort_keys=True) == json.dumps(said, sort_keys=True)
