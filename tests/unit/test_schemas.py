"""Whatever the body holds: a request, or an InvalidRequest that says what is wrong."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from chalicelib.domain.errors import InvalidRequest
from chalicelib.schemas.executions import StartRequest
from chalicelib.schemas.jobs import JobRequest
from chalicelib.schemas.parsing import parse
from tests.support.job_fields import ADDITIONS, CLEARED, DEFAULTS, FIELDS, SECRET

LEAST = {"AppName": "a", "Name": "n", "Cmd": "true"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def body(**fields: Any) -> bytes:
    return json.dumps({**LEAST, **fields}).encode()


def test_null_is_the_same_as_absent() -> None:
    request = parse(body(**dict.fromkeys(DEFAULTS), Unknown=1), JobRequest)
    assert request == parse(body(), JobRequest)
    for name in CLEARED:
        assert getattr(request, name) == DEFAULTS[name]
    for name in (*ADDITIONS, SECRET):
        assert getattr(request, name) is UNSET


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


@given(st.sampled_from([*FIELDS]), JSON)
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


ENV_LIMIT = ["A=" + "x" * 8190, "B=" + "x" * 8190]


@pytest.mark.parametrize(
    "fields",
    [
        {"AppName": "x" * 128},
        {"Name": "  " + "名" * 64 + " "},
        {"Cmd": "x" * 4096},
        {"ServiceName": "x" * 128},
        {"User": "1000:1000"},
        {"User": "www-data:www-data"},
        {"Env": [f"A{number}=" for number in range(100)]},
        {"Env": ENV_LIMIT},
        {"Env": ["A=b=c", "Ä.-=two\nlines"]},
        {"SecretArgs": ["s"] * 32},
        {"SecretArgs": ["密" * 1024]},
        {"SecretArgs": []},
    ],
)
def test_what_is_at_the_limit_is_taken(fields: dict[str, Any]) -> None:
    request = parse(body(**fields), JobRequest)
    for name, value in fields.items():
        assert getattr(request, name) == (value.strip() if name == "Name" else value)


@pytest.mark.parametrize(
    ("fields", "field", "right"),
    [
        ({"AppName": "x" * 129}, "AppName", "1 to 128"),
        ({"AppName": 1}, "AppName", "Expected `str`"),
        ({"Name": "名" * 65}, "Name", "1 to 64"),
        ({"Cmd": ""}, "Cmd", ">= 1"),
        ({"Cmd": "x" * 4097}, "Cmd", "<= 4096"),
        ({"ServiceName": "x" * 129}, "ServiceName", "<= 128"),
        ({"Privileged": 1}, "Privileged", "Expected `bool`"),
        ({"User": "x" * 129}, "User", "<= 128"),
        ({"User": "root:"}, "User", "user:group"),
        ({"User": "root\n"}, "User", "user:group"),
        ({"Env": "A=b"}, "Env", "Expected `array`"),
        ({"Env": ["A=b"] * 101}, "Env", "<= 100"),
        ({"Env": [*ENV_LIMIT[1:], ENV_LIMIT[0] + "x"]}, "Env", "16384 bytes"),
        ({"Env": ["A=1", 2]}, "Env[1]", "Expected `str`"),
        ({"Env": ["A=1", None]}, "Env[1]", "Expected `str`"),
        ({"Env": ["A B=c"]}, "Env[0]", "NAME=value"),
        ({"Env": ["A=\0"]}, "Env[0]", "NUL"),
        ({"SecretArgs": ["s"] * 33}, "SecretArgs", "<= 32"),
        ({"SecretArgs": ["密" * 1024, "x"]}, "SecretArgs", "3072 bytes"),
        ({"SecretArgs": [1]}, "SecretArgs[0]", "Expected `str`"),
    ],
)
def test_what_is_over_the_limit_is_refused_by_name_and_told_what_is_right(
    fields: dict[str, Any], field: str, right: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(body(**fields), JobRequest)
    assert refused.value.message.startswith(field)
    assert right in refused.value.message


@pytest.mark.parametrize("field", sorted(LEAST))
def test_null_does_not_stand_for_what_is_required(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field} is required"):
        parse(body(**{field: None}), JobRequest)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"Name": "\xff"}',
        b'{"AppName": "\\ud800", "Name": "n", "Cmd": "c"}',
        b"NaN",
        b'{"AppName": 1e999}',
        b"[" * 100_000,
        b'{"Name":' * 100_000,
        b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_a_malformed_body_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(text, JobRequest)


@given(st.lists(st.sampled_from(["a", "\\ud83d", "\\ude00", "\\u0000", "\\n"]), max_size=4))
def test_any_escape_in_a_text_is_taken_or_refused(escapes: list[str]) -> None:
    text = "".join(escapes)
    whole = f'{{"AppName": "a", "Name": "n{text}", "Cmd": "c", "SecretArgs": ["{text}"]}}'
    with suppress(InvalidRequest):
        request = parse(whole.encode(), JobRequest)
        assert request.Name.encode()


def targets(count: int, **fields: Any) -> bytes:
    named = [{"ContainerId": f"c{number}", "NodeId": "n", **fields} for number in range(count)]
    return json.dumps({"Target": named}).encode()


@pytest.mark.parametrize("count", [1, 1000])
def test_as_many_targets_as_allowed_are_taken(count: int) -> None:
    assert len(parse(targets(count), StartRequest).Target) == count


@pytest.mark.parametrize(("count", "right"), [(0, ">= 1"), (1001, "<= 1000")])
def test_too_few_or_too_many_targets_are_refused(count: int, right: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Target: .*{right}"):
        parse(targets(count), StartRequest)


@pytest.mark.parametrize("container", ["", "x" * 129, "../x", "a/b", "a\n", "-a", "ü", 1])
def test_a_container_that_no_engine_names_so_is_refused(container: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^Target\[0\]\.ContainerId"):
        parse(targets(1, ContainerId=container), StartRequest)


@pytest.mark.parametrize("node", ["", "x" * 129, 1])
def test_a_node_id_out_of_its_limits_is_refused(node: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^Target\[0\]\.NodeId"):
        parse(targets(1, NodeId=node), StartRequest)


def test_unknown_keys_are_ignored_at_any_depth() -> None:
    parse(targets(1, Extra={"a": [None]}), StartRequest)
    assert parse(body(JobId=1, secretArgs=[]), JobRequest).SecretArgs is UNSET
