"""Removes the values of a job's secret arguments from its output, while the output streams through."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from ahocorasick_rs import BytesAhoCorasick

MASK = b"***"
# Shorter values are in any text by chance: to hide them would spoil the output and hide nothing.
SHORTEST = 4
# The same for one line of a longer value, in characters: `true`, `users:` or `],` is not a secret there.
SHORTEST_LINE = 8
# The lines around a key in PEM reveal nothing of it.
_ARMOR = re.compile(r"-----(BEGIN|END) [^-]+-----")


class Needles:
    """What must not be shown: the secrets, as they are, and as a shell may print them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        needles = sorted({form.encode() for secret in secrets for form in _forms(secret)})
        self._longest = max(map(len, needles), default=0)
        self._by_head: dict[bytes, list[bytes]] = defaultdict(list)
        for needle in needles:
            self._by_head[needle[:SHORTEST]].append(needle)
        # This finds any number of needles in one pass.
        self._whole = BytesAhoCorasick(needles)
        self._heads = BytesAhoCorasick(list(self._by_head))

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """The places of all needles, as (start, end), in the order of their starts. They may overlap."""
        matches = self._whole.find_matches_as_indexes(data, overlapping=True)
        return sorted((start, end) for _, start, end in matches)

    def find_unfinished(self, data: bytes) -> int:
        """Where the first needle begins that more data may complete; the data's length if none does."""
        size = len(data)
        first = max(0, size - self._longest + 1)
        for _, start, end in self._heads.find_matches_as_indexes(data[first:], overlapping=True):
            rest = data[first + start :]
            for needle in self._by_head[rest[: end - start]]:
                if len(needle) > len(rest) and needle.startswith(rest):
                    return first + start
        for start in range(max(first, size - SHORTEST + 1), size):
            if any(head.startswith(data[start:]) for head in self._by_head):
                return start
        return size


def _forms(secret: str) -> Iterator[str]:
    """The value; the value without its outer blanks; with each run of blanks as one; its longer lines."""
    for form in (secret, secret.strip(), " ".join(secret.split())):
        if len(form) >= SHORTEST:
            yield form
    for line in map(str.strip, secret.splitlines()):
        if len(line) >= SHORTEST_LINE and _reveals_something(line):
            yield line


def _reveals_something(line: str) -> bool:
    return any(map(str.isalnum, line)) and not _ARMOR.fullmatch(line)


class Redactor:
    """Replaces the needles in a stream of bytes by MASK, and no other byte.

    Needles that overlap are replaced together, by one MASK. The outcome does not depend on how the stream
    was cut into chunks: it is the same as for the whole stream in one chunk.

    The engine sends stdout and stderr in frames of one stream. If a piece of stderr is in the middle of
    a secret on stdout, the merged bytes do not contain the secret. So each of the two needs its own
    redactor. The bytes that one redactor holds back then come after what the other stream said meanwhile.
    They are at most the beginning of a secret, and the order within each stream stays.
    """

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        # What may yet become a needle. A MASK that was shown already replaces its first `_covered` bytes.
        self._held = b""
        self._covered = 0

    def feed(self, chunk: bytes) -> bytes:
        """The output as far as it is settled; bytes that may yet become a secret are held back."""
        data = self._held + chunk
        return self._settle(data, self._needles.find_unfinished(data))

    def flush(self) -> bytes:
        """The bytes that were held back when the stream ended."""
        return self._settle(self._held, len(self._held))

    def _settle(self, data: bytes, edge: int) -> bytes:
        """Returns the data up to the edge, redacted, and holds the rest back.

        No needle that is still unfinished begins before the edge.
        """
        shown: list[bytes] = []
        position = self._covered
        for start, end in self._needles.find(data):
            if start >= position:
                if start > edge:
                    break
                shown += data[position:start], MASK
            position = max(position, end)
        shown.append(data[position:edge])
        self._held = data[edge:]
        self._covered = max(position - edge, 0)
        return b"".join(shown)


def redact(text: str, needles: Needles) -> str:
    """The text without the needles."""
    redactor = Redactor(needles)
    return (redactor.feed(text.encode()) + redactor.flush()).decode()
