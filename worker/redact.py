"""Takes the values of a job's secret arguments out of its output, while it streams by."""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace

MASK = b"***"
# Shorter values stand in any text by chance: hiding them would spoil the output and hide nothing.
SHORTEST = 4


class Redactor:
    """Replaces each secret in a stream of bytes by MASK, and no other byte.

    What it makes of the chunks does not depend on where they were cut: it is what replacing in the whole
    stream at once would give, from the left, the longest secret first.

    The engine sends stdout and stderr in frames of one stream. A secret on stdout with a piece of stderr
    in the midst of it is no secret in the merged bytes, so each of the two needs a redactor of its own.
    What one holds back then comes after what the other stream said meanwhile: at most the beginning of
    a secret, and the order within each stream stays.
    """

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = {secret.encode() for secret in secrets if len(secret) >= SHORTEST}
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The output as far as it is settled; what may yet become a secret is held back."""
        return self._settle(self._held + chunk, self._unfinished)

    def flush(self) -> bytes:
        """What was held back when the stream ended."""
        return self._settle(self._held, lambda data, _: len(data))

    def _settle(self, data: bytes, edge_after: Callable[[bytes, int], int]) -> bytes:
        """Redacts the data up to its edge and holds back what is behind."""
        edge = edge_after(data, 0)
        position = 0
        shown: list[bytes] = []
        for start, end in self._found(data):
            if start >= edge:
                break
            shown += data[position:start], MASK
            position = end
            # A secret that reaches over the edge leaves another one, or none.
            if position > edge:
                edge = edge_after(data, position)
        self._held = data[edge:]
        shown.append(data[position:edge])
        return b"".join(shown)

    def _found(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where secrets stand, from the left, the longest first, no two of them overlapping.

        One search per secret: a search for all at once, as a regular expression, takes ten times as long.
        """
        nearest = [
            (start, -len(secret), secret)
            for secret in self._secrets
            if (start := data.find(secret)) >= 0
        ]
        heapify(nearest)
        end = 0
        while nearest:
            start, _, secret = nearest[0]
            if start >= end:
                end = start + len(secret)
                yield start, end
            following = data.find(secret, end)
            if following < 0:
                heappop(nearest)
            else:
                heapreplace(nearest, (following, -len(secret), secret))

    def _unfinished(self, data: bytes, first: int) -> int:
        """Where, not before `first`, the data's end begins that is a proper beginning of a secret."""
        return min(
            (_unfinished(data, secret, first) for secret in self._secrets), default=len(data)
        )


def _unfinished(data: bytes, secret: bytes, first: int) -> int:
    """The same for one secret; the data's length where there is no such end."""
    start = data.find(secret[:1], max(first, len(data) - len(secret) + 1))
    while start >= 0 and not secret.startswith(data[start:]):
        start = data.find(secret[:1], start + 1)
    return start if start >= 0 else len(data)
