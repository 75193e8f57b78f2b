"""Secrets in a stream: replaced wherever the chunks were cut, and nothing else is touched."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.output.redact import Needles, Redactor, redact

BEGIN, END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
PEM = f"{BEGIN}\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n{END}\n"

# Few letters, so that secrets contain, begin and overlap each other; `.`, `*` and the rest are special.
LETTERS = st.sampled_from(["a", "b", ".", "*", "\n", " ", "密"])
SECRETS = st.lists(st.text(LETTERS, max_size=12), max_size=5)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    """Secrets, and chunks of an output that holds whole ones, pieces of them, and other bytes."""
    secrets = draw(SECRETS)
    text = st.text(LETTERS, max_size=5) | st.sampled_from([*secrets, ""])
    output = b"".join(draw(st.lists(text.map(str.encode) | st.binary(max_size=3), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(output)), max_size=20)))
    edges = [0, *cuts, len(output)]
    return secrets, [output[a:b] for a, b in pairwise(edges)]


def forms(secrets: list[str]) -> set[bytes]:
    """What is hidden, as docs/redaction.md has it."""
    values = {form for one in secrets for form in (one, one.strip(), " ".join(one.split()))}
    lines = {line.strip() for one in secrets for line in one.split("\n")}
    long_lines = {line for line in lines if len(line) >= 8 and any(map(str.isalnum, line))}
    return {form.encode() for form in {one for one in values if len(one) >= 4} | long_lines}


def spans(secrets: list[str], output: bytes) -> list[tuple[int, int]]:
    """Every place that must be hidden: where a form begins and ends, overlapping ones as one."""
    found = sorted(
        (start, start + len(form))
        for form in forms(secrets)
        for start in range(len(output))
        if output.startswith(form, start)
    )
    merged: list[tuple[int, int]] = []
    for start, end in found:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def in_one(secrets: list[str], output: bytes) -> bytes:
    """The reference: the whole output at once, naively."""
    for start, end in reversed(spans(secrets, output)):
        output = output[:start] + b"***" + output[end:]
    return output


def streamed(secrets: list[str], chunks: list[bytes]) -> bytes:
    redactor = Redactor(Needles(secrets))
    return b"".join([*map(redactor.feed, chunks), redactor.flush()])


@given(streams())
@example((["aaaa", "aaaab"], [b"aaaaa", b"aab"]))
@example((["abab", "baba.."], [b"ababab", b"a.."]))
@example((["abcd", "bcde.fgh"], [b"abcd", b"e.fghabcde"]))
@example((["first line\nsecond line\n"], [b"second li", b"ne first line second lin"]))
def test_the_same_as_in_one_whatever_the_cuts(stream: tuple[list[str], list[bytes]]) -> None:
    secrets, chunks = stream
    assert streamed(secrets, chunks) == in_one(secrets, b"".join(chunks))


@given(streams())
def test_the_same_as_in_one_with_a_cut_at_every_position(
    stream: tuple[list[str], list[bytes]],
) -> None:
    secrets, chunks = stream
    output = b"".join(chunks)
    expected = in_one(secrets, output)
    assert streamed(secrets, [output[i : i + 1] for i in range(len(output))]) == expected
    for cut in range(len(output)):
        assert streamed(secrets, [output[:cut], output[cut:]]) == expected


@given(streams())
def test_no_more_is_held_back_than_may_become_a_secret(
    stream: tuple[list[str], list[bytes]],
) -> None:
    secrets, chunks = stream
    redactor = Redactor(Needles(secrets))
    seen = shown = b""
    for chunk in chunks:
        seen += chunk
        shown += redactor.feed(chunk)
        open_ends = (
            start
            for start in range(len(seen))
            if any(
                form.startswith(seen[start:]) and form != seen[start:] for form in forms(secrets)
            )
        )
        # Everything before the first place at which a secret may begin, and a secret that begins there.
        edge = next(open_ends, len(seen))
        settled = [span for span in spans(secrets, seen) if span[0] <= edge]
        least = in_one(secrets, seen[: max([edge, *(end for _, end in settled)])])
        if settled and settled[-1][1] >= edge:
            assert shown == least
        else:
            assert shown == in_one(secrets, seen[:edge])


@pytest.mark.parametrize(
    ("secrets", "output", "expected"),
    [
        (["pass"], b"pass,passpass,pas", b"***,******,pas"),
        (["abc", "", "x"], b"abc x", b"abc x"),
        (["密码密码"], "a密码密码b".encode(), b"a***b"),
        (["密码密"], "密码密".encode(), "密码密".encode()),
        (["pass", "password"], b"password pass passwor", b"*** *** ***wor"),
        (["sswo", "password"], b"password xsswox", b"*** x***x"),
        (["abcd", "cdef"], b"abcdef", b"***"),
        (["abcd", "bcdefgh"], b"abcdefgh", b"***"),
        (["aaaa"], b"aaaaaaaaa", b"***"),
        (["token\n", " blank "], b"token: token, blank", b"***: ***, ***"),
        (["one\ntwo\n"], b"one two, one", b"***, one"),
        ([PEM], PEM.encode(), b"***"),
        ([PEM], PEM.strip().encode(), b"***"),
        ([PEM], " ".join(PEM.split()).encode(), b"***"),
        ([PEM], PEM.replace("\n", "\r\n").encode(), f"{BEGIN}\r\n***\r\n***\r\n{END}\r\n".encode()),
        ([PEM], b"x MIIEvQIBADANBgkqhkiG x", b"x *** x"),
        ([PEM], f"{BEGIN}\nother\n{END}".encode(), f"{BEGIN}\nother\n{END}".encode()),
        (['{\n  "password": "hunter2!"\n}'], b'{} "password": "hunter2!",', b"{} ***,"),
        (["==========\n/////////x"], b"========== /////////x", b"***"),
        (["==========\n/////////x"], b"==========\t/////////x", b"==========\t***"),
        (["a.c*", "(x|"], b"a.c* abcc (x|", b"*** abcc (x|"),
        (["two\nlines"], b"two\nlines two\r\nlines", b"*** two\r\nlines"),
        (["same", "same"], b"same", b"***"),
        (["****"], b"*****", b"***"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_examples(secrets: list[str], output: bytes, expected: bytes, size: int) -> None:
    chunks = [output[start : start + size] for start in range(0, len(output), size)]
    assert streamed(secrets, chunks) == expected


@pytest.mark.parametrize(
    ("secrets", "message", "expected"),
    [
        (["o", "n"], "No such container: nosuch-o", "No such container: nosuch-o"),
        (["such", "***", "*"], "No such container", "No *** container"),
        (["pass", "password"], "no password here", "no *** here"),
        ([""], "all right", "all right"),
    ],
)
def test_a_message_is_treated_as_output_is(secrets: list[str], message: str, expected: str) -> None:
    assert redact(message, Needles(secrets)) == expected


def test_a_prompt_appears_at_once() -> None:
    redactor = Redactor(Needles(["word of honour"]))
    assert redactor.feed(b"Password: ") == b"Password: "
    assert redactor.feed(b"Say the wor") == b"Say the "
    assert redactor.feed(b"k") == b"work"
    assert redactor.flush() == b""


def test_a_secret_is_hidden_as_soon_as_it_is_whole() -> None:
    redactor = Redactor(Needles(["secret", "secret-longer"]))
    assert redactor.feed(b"a secret") == b"a ***"
    assert redactor.feed(b"!") == b"!"


def test_a_secret_that_turns_out_to_be_a_longer_one_stays_one_mask() -> None:
    redactor = Redactor(Needles(["secret", "secret-longer"]))
    assert redactor.feed(b"secret") == b"***"
    assert redactor.feed(b"-longe") == b""
    assert redactor.feed(b"r!") == b"!"


def test_a_secret_that_repeats_itself_is_not_kept_in_memory() -> None:
    redactor = Redactor(Needles(["aaaa"]))
    assert redactor.feed(b"a" * 1000) == b"***"
    assert len(redactor._held) < 4
    assert redactor.feed(b"b") == b"b"


def test_after_a_flush_it_begins_anew() -> None:
    redactor = Redactor(Needles(["secret"]))
    assert redactor.feed(b"sec") == b""
    assert redactor.flush() == b"sec"
    assert redactor.feed(b"ret") == b"ret"
