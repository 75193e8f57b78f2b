"""Finds the jobs whose words change with the rules of a POSIX shell: `python -m dev.words`.

It reads the answer of GET /api/jobs from its standard input.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any

from chalicelib.domain.words import split


def changed(jobs: Iterable[dict[str, Any]]) -> list[str]:
    """A paragraph for each job whose words change."""
    return [
        f"{job['JobId']}  {job['AppName']}  {job['Name']}\n"
        f"  before: {_words(shlex.split, job['Cmd'])}\n"
        f"  after:  {_words(split, job['Cmd'])}"
        for job in jobs
        if _words(shlex.split, job["Cmd"]) != _words(split, job["Cmd"])
    ]


def _words(rules: Callable[[str], list[str]], command: str) -> list[str] | str:
    try:
        return rules(command)
    except ValueError as error:
        return f"does not split: {error}"


if __name__ == "__main__":
    found = changed(json.load(sys.stdin))
    print("\n".join(found) or "no job's words change")
