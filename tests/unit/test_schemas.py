"""Whatever the body holds: a request, or an InvalidRequest that says what is wrong."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from chalicelib.errors import InvalidRequest
from chalicelib.schemas import JobRequest, StartRequest, parse

LEAST = {"AppName": "a", "Name": "n", "Cmd": "true"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def body(**fields: Any) -> bytes:
    return json.dumps({**LEAST, **fields}).encode()


def test_null_is_the_same_as_absent() -> None:
    nulls = dict.fromkeys(("ServiceName", "Privileged", "User", "Env", "SecretArgs"))
    request = parse(body(**nulls, Unknown=1), JobRequest)
    assert (request.ServiceName, request.Privileged, request.User) == ("", False, "")
    assert request.Env == []
    assert request.SecretArgs is UNSET


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Name": " \t"}, "Name"),
        ({"Name": "x" * 65}, "Name"),
        ({"AppName": ""}, "AppName"),
        ({"Cmd": "echo 'open"}, "Cmd"),
        ({"Cmd": "  "}, "Cmd"),
        ({"Cmd": "''"}, "Cmd"),
        ({"Cmd": "a\0b"}, "Cmd"),
        ({"Privileged": "yes"}, "Privileged"),
        ({"User": "a b"}, "User"),
        ({"User": "a:b:c"}, "User"),
        ({"Env": ["=x"]}, "Env[0]"),
        ({"Env": ["A=1", "B"]}, "Env[1]"),
        ({"Env": ["A=" + "x" * 16384]}, "Env"),
        ({"SecretArgs": ["a\0"]}, "SecretArgs[0]"),
        ({"SecretArgs": ["x"] * 33}, "SecretArgs"),
        ({"SecretArgs": ["密" * 1025]}, "SecretArgs"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**fields), JobRequest)
    assert said in refused.value.message


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_refused(text: bytes) -> None:
    for shape in (JobRequest, StartRequest):
        with pytest.raises(InvalidRequest):
            parse(text, shape)


@given(st.sampled_from([*LEAST, "User", "Env", "SecretArgs", "Privileged"]), JSON)
def test_any_value_of_a_field_is_taken_or_refused(field: str, value: Any) -> None:
    with suppress(InvalidRequest):
        parse(body(**{field: value}), JobRequest)


def test_a_container_stands_once() -> None:
    target = {"ContainerId": "c", "NodeId": "n"}
    with pytest.raises(InvalidRequest, match=r"Target\[1\]"):
        parse(json.dumps({"Target": [target, target]}).encode(), StartRequest)


@pytest.mark.parametrize(
    ("text", "shape", "said"),
    [
        (b'{"AppName": "a", "Cmd": "c"}', JobRequest, "Name is required"),
        (b'{"Target": [{"ContainerId": "c"}]}', StartRequest, "Target[0].NodeId is required"),
        (b"[]", JobRequest, "the body must be a JSON object"),
    ],
)
def test_what_is_missing_is_said_plainly(text: bytes, shape: type[Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(text, shape)
    assert refused.value.message == said
