"""Splits a command into words as a POSIX shell does (XCU 2.2 and 2.3), without any expansion. Pure.

Backslash, quotes, line continuation and comments mean what they mean to a shell. What a shell would
expand (`$`, a backquote, `*`, `~`) or read as an operator (`|`, `;`, `&`, `<`, `>`, parentheses) is an
ordinary character here. An unquoted newline separates words as a blank does.
"""

import re

from chalicelib.domain.errors import InvalidRequest

_QUOTED = r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)\""""
_PART = re.compile(_QUOTED, re.DOTALL)
# What separates words, then a word. A comment begins where a word could begin.
_STEP = re.compile(
    rf"""(?:[ \t\n]|\\\n|#[^\n]*)*(?P<word>(?:{_QUOTED}|[^ \t\n\\'"])+)?""", re.DOTALL
)
# Within double quotes, a backslash before any other character is an ordinary character.
_ESCAPED = re.compile(r'\\(?:([$`"\\])|\n)')
_OPEN = {
    "'": "it ends within single quotes; close them",
    '"': "it ends within double quotes; close them",
    "\\": r"it ends in a backslash; write \\ for one, or leave it out",
}


def split(command: str) -> list[str]:
    """The words; the first one is the program. Raises ValueError, which says what would be right."""
    words = []
    for step in _STEP.finditer(command):
        if step["word"]:
            words.append(_PART.sub(_unquoted, step["word"]))
        elif step.end() < len(command):
            raise ValueError(_OPEN[command[step.end()]])
    if not words or not words[0]:
        raise ValueError("its first word is empty; it must name a program")
    return words


def require_words(command: str) -> None:
    """Raises InvalidRequest for a Cmd that does not split into words."""
    try:
        split(command)
    except ValueError as error:
        raise InvalidRequest(
            f"Cmd does not split into words as a POSIX shell splits them: {error}"
        ) from None


def _unquoted(part: re.Match[str]) -> str:
    escaped, single, double = part.groups()
    if escaped is not None:
        return "" if escaped == "\n" else str(escaped)
    if single is not None:
        return str(single)
    return _ESCAPED.sub(r"\1", double)
