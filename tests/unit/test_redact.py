"""Secrets in a stream: replaced wherever the chunks were cut, and nothing else is touched."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.redact import Redactor

# Few letters, so that secrets contain, begin and overlap each other; `.`, `*` and the rest are special.
LETTERS = st.sampled_from(["a", "b", ".", "*", "\n", "密"])
SECRETS = st.lists(st.text(LETTERS, max_size=9), max_size=5)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    """Secrets, and chunks of an output that holds whole ones, pieces of them, and other bytes."""
    secrets = draw(SECRETS)
    text = st.text(LETTERS, max_size=5) | st.sampled_from([*secrets, ""])
    output = b"".join(draw(st.lists(text.map(str.encode) | st.binary(max_size=3), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(output)), max_size=20)))
    edges = [0, *cuts, len(output)]
    return secrets, [output[a:b] for a, b in pairwise(edges)]


def in_one(secrets: list[str], output: bytes) -> bytes:
    """The reference: a regular expression over the whole output."""
    long = sorted((one.encode() for one in secrets if len(one) >= 4), key=len, reverse=True)
    return re.sub(b"|".join(map(re.escape, long)), b"***", output) if long else output


def redacted(secrets: list[str], chunks: list[bytes]) -> bytes:
    redactor = Redactor(secrets)
    return b"".join([*map(redactor.feed, chunks), redactor.flush()])


@given(streams())
@example((["aaaa", "aaaab"], [b"aaaaa", b"aab"]))
@example((["abab", "baba.."], [b"ababab", b"a.."]))
def test_the_same_as_in_one_whatever_the_cuts(stream: tuple[list[str], list[bytes]]) -> None:
    secrets, chunks = stream
    assert redacted(secrets, chunks) == in_one(secrets, b"".join(chunks))


@given(streams())
def test_no_more_is_held_back_than_may_become_a_secret(
    stream: tuple[list[str], list[bytes]],
) -> None:
    secrets, chunks = stream
    redactor = Redactor(secrets)
    seen = shown = b""
    long = [secret.encode() for secret in secrets if len(secret) >= 4]
    for chunk in chunks:
        seen += chunk
        shown += redactor.feed(chunk)
        held = next(
            held for held in _ends(seen) if shown + in_one(secrets, held) == in_one(secrets, seen)
        )
        assert not held or any(len(held) < len(one) and one.startswith(held) for one in long)


def _ends(data: bytes) -> list[bytes]:
    """Its ends, the shortest first."""
    return [data[start:] for start in range(len(data), -1, -1)]


@pytest.mark.parametrize(
    ("secrets", "output", "expected"),
    [
        (["pass"], b"pass,passpass,pas", b"***,******,pas"),
        (["abc", "", "x"], b"abc x", b"abc x"),
        (["密码密码"], "a密码密码b".encode(), b"a***b"),
        (["密码密"], "密码密".encode(), "密码密".encode()),
        (["pass", "password"], b"password pass passwor", b"*** *** ***wor"),
        (["sswo", "password"], b"password xsswox", b"*** x***x"),
        (["abcd", "cdef"], b"abcdef", b"***ef"),
        (["a.c*", "(x|"], b"a.c* abcc (x|", b"*** abcc (x|"),
        (["two\nlines"], b"two\nlines two\r\nlines", b"*** two\r\nlines"),
        (["same", "same"], b"same", b"***"),
        (["****"], b"*****", b"****"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_examples(secrets: list[str], output: bytes, expected: bytes, size: int) -> None:
    chunks = [output[start : start + size] for start in range(0, len(output), size)]
    assert redacted(secrets, chunks) == expected


def test_a_prompt_appears_at_once() -> None:
    redactor = Redactor(["word of honour"])
    assert redactor.feed(b"Password: ") == b"Password: "
    assert redactor.feed(b"Say the wor") == b"Say the "
    assert redactor.feed(b"k") == b"work"
    assert redactor.flush() == b""


def test_a_secret_is_hidden_as_soon_as_it_is_whole() -> None:
    redactor = Redactor(["secret", "secret-longer"])
    assert redactor.feed(b"a secret") == b"a "
    assert redactor.feed(b"!") == b"***!"


def test_after_a_flush_it_begins_anew() -> None:
    redactor = Redactor(["secret"])
    assert redactor.feed(b"sec") == b""
    assert redactor.flush() == b"sec"
    assert redactor.feed(b"ret") == b"ret"
