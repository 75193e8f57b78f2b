"""How commands are split, held against real shells."""

import re
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.words import split
from dev.words import changed

SHELLS = [["sh"], ["busybox", "sh"]]
# Prints the words that the shell makes of each argument; ends them with \1, or with \2 if it makes none.
SCRIPT = r"""
w() { [ $# = 0 ] || printf '%s\0' "$@"; }
for text do
    if (eval "$text") 2>/dev/null; then printf '\1\0'; else printf '\2\0'; fi
done
"""


def shell_words(shell: Sequence[str], texts: Sequence[str]) -> list[list[str] | None]:
    """The words of the texts, each a script that calls `w` with them; None: the shell cannot read it."""
    done = subprocess.run([*shell, "-c", SCRIPT, "sh", *texts], capture_output=True, check=True)
    words: list[list[str] | None] = []
    current: list[str] = []
    for word in done.stdout.decode().split("\0")[:-1]:
        if word in ("\1", "\2"):
            words.append(current if word == "\1" else None)
            current = []
        else:
            current.append(word)
    assert len(words) == len(texts), done.stderr
    return words


def our_words(command: str) -> list[str] | None:
    """The command's words after a first one; None if it does not split."""
    try:
        return split(f"w {command}")[1:]
    except ValueError:
        return None


# Commands made of parts, each with what it is in a shell's script. There a newline would end the command.

PLAIN = "abc-_.=:/,%+@é密\r\v\u00a0"
OPERATORS = "|&;<>()*?[]{}~!^$`"
anything = st.sampled_from(PLAIN + OPERATORS + "#\\'\" \t\n")

single = st.text(anything.filter(lambda c: c != "'"), max_size=4).map(lambda text: f"'{text}'")
inner = st.one_of(
    anything.filter(lambda c: c not in '"\\$`'),
    anything.map(lambda c: f"\\{c}"),
)
double = st.lists(inner, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
escaped = anything.map(lambda c: f"\\{c}")
word = (
    st.lists(st.sampled_from([*PLAIN, "#"]) | single | double | escaped, min_size=1, max_size=5)
    .map("".join)
    # Such a word would be a comment.
    .filter(lambda text: not re.match(r"(\\\n)*(#|\Z)", text))
)
comment = st.text(anything.filter(lambda c: c != "\n"), max_size=6).map(
    lambda text: (f" #{text}\n", f" #{text}\nw ")
)
gap = st.one_of(
    st.sampled_from([" ", "\t", " \\\n", "\\\n ", " \t "]).map(lambda text: (text, text)),
    st.just(("\n", "\nw ")),
    comment,
)
commands = st.lists(st.tuples(gap, word), max_size=5).map(
    lambda parts: (
        "".join(between[0] + word for between, word in parts),
        "".join(between[1] + word for between, word in parts),
    )
)
in_batches = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@in_batches
@given(batch=st.lists(commands, min_size=10, max_size=30))
def test_words_are_a_shells(shell: list[str], batch: list[tuple[str, str]]) -> None:
    expected = shell_words(shell, [f"w {script}" for _, script in batch])
    assert [our_words(command) for command, _ in batch] == expected


def is_comparable(text: str) -> bool:
    """Whether a shell would neither expand anything of it nor see more than one command in it."""
    expands = re.search(r"(?<!\\)(\\\\)*[$`\n]", text)
    return not (expands or text.endswith("\\") or ("#" in text and "\n" in text))


pieces = st.sampled_from(["'", '"', "\\", "#", " ", "\t", "a", "b", r"\$", r"\`", "\\\n", '\\"'])


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@in_batches
@given(batch=st.lists(st.lists(pieces, max_size=9).map("".join), min_size=10, max_size=30))
def test_what_does_not_split_is_open_in_a_shell_too(shell: list[str], batch: list[str]) -> None:
    texts = [text for text in batch if is_comparable(text)]
    assert [our_words(text) for text in texts] == shell_words(shell, [f"w {t}" for t in texts])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (r"""sh -c "ps | awk '{print \$1}'" """, ["sh", "-c", "ps | awk '{print $1}'"]),
        (r'sh -c "rm -rf \"\$DIR\"/*"', ["sh", "-c", 'rm -rf "$DIR"/*']),
        ("a \\\n  --b \\\n  --c", ["a", "--b", "--c"]),
        ('"a\\\nb"', ["ab"]),
        ("a # b\nc d#e '#f'", ["a", "c", "d#e", "#f"]),
        ("a '' \"\"", ["a", "", ""]),
        (
            "a | b; c && d > e (f) $G *.h ~",
            ["a", "|", "b;", "c", "&&", "d", ">", "e", "(f)", "$G", "*.h", "~"],
        ),
        (r"a \| \$b \ c", ["a", "|", "$b", " c"]),
        ("a\rb\u00a0c", ["a\rb\u00a0c"]),
        ("$'a'", ["$a"]),
    ],
)
def test_examples(command: str, words: list[str]) -> None:
    assert split(command) == words


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo 'a", "single quotes"),
        ('echo "a\\"', "double quotes"),
        ("echo a\\", "backslash"),
        ("a #'\nb'", "single quotes"),
        ("", "first word is empty"),
        (" \n\t", "first word is empty"),
        ("# a", "first word is empty"),
        ("'' a", "first word is empty"),
        ("\\\n", "first word is empty"),
    ],
)
def test_what_does_not_split(command: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(command)


def test_the_longest_commands_are_split_at_once() -> None:
    for command in (
        "a" + "\\\n" * 2000,
        '"' + "\\" * 4095,
        "a" * 4096,
        "a" + "#\n" * 2000,
        "a '" * 1000,
    ):
        our_words(command)


def test_the_jobs_that_the_new_rules_touch_are_found() -> None:
    commands = ["ps axu", r'sh -c "echo \$A"', "a \\\nb", "a # b", "a '#' \\$", "a #'\nb'"]
    jobs = [
        {"JobId": str(n), "AppName": "a", "Name": "n", "Cmd": c} for n, c in enumerate(commands)
    ]
    found = changed(jobs)
    assert [paragraph.partition(" ")[0] for paragraph in found] == ["1", "2", "3", "5"]
    assert r"before: ['sh', '-c', 'echo \\$A']" in found[0]
    assert "after:  ['sh', '-c', 'echo $A']" in found[0]
    assert "after:  does not split" in found[3]
