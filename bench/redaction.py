"""What redaction costs: the time to write an output to the disk with it, divided by the time without.

The time is the processor's, so that other programs on the machine do not count.

Run it as `python -m bench.redaction [MB]`.
"""

import random
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryFile

from worker.output.redact import MASK, Needles, Redactor

# What the engine sends at once if a command prints without a pause.
_CHUNK_BYTES = 32 * 1024
_MEGABYTE = 1024**2
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# One word in this many is a secret.
_SCATTER = 500
_RUNS = 3


def main(megabytes: int) -> None:
    """Prints a line for each number of secrets; fails if the redacted output is wrong."""
    print(f"{megabytes} MB in chunks of 32 KiB to a file, the best of {_RUNS} runs, in MB/s")
    print("secrets  plain  redacted  ratio")
    for count in (1, 4, 32):
        chance = random.Random(count)
        secrets = ["".join(chance.choices(_LETTERS, k=16)) for _ in range(count)]
        chunks = _chunks(_output(chance, secrets, megabytes * _MEGABYTE))
        _check(secrets, chunks)
        plain = min(_seconds(chunks, bytes) for _ in range(_RUNS))
        redacted = min(_seconds(chunks, Redactor(Needles(secrets)).feed) for _ in range(_RUNS))
        speeds = f"{megabytes / plain:5.0f}  {megabytes / redacted:8.0f}"
        print(f"{count:7}  {speeds}  {redacted / plain:5.2f}")


def _output(chance: random.Random, secrets: list[str], size: int) -> bytes:
    """Text with secrets scattered over it; it repeats itself after some megabytes."""
    common = ["".join(chance.choices(_LETTERS, k=chance.randint(2, 12))) for _ in range(5000)]
    words = [
        chance.choice(common if chance.randrange(_SCATTER) else secrets) for _ in range(500_000)
    ]
    text = " ".join(words).encode() + b"\n"
    return (text * (size // len(text) + 1))[:size]


def _chunks(output: bytes) -> list[bytes]:
    return [output[start : start + _CHUNK_BYTES] for start in range(0, len(output), _CHUNK_BYTES)]


def _check(secrets: list[str], chunks: list[bytes]) -> None:
    redactor = Redactor(Needles(secrets))
    redacted = b"".join([*map(redactor.feed, chunks), redactor.flush()])
    expected = b"".join(chunks)
    # None of these secrets overlaps another, so one after the other is as good as all at once.
    for secret in secrets:
        expected = expected.replace(secret.encode(), MASK)
    if redacted != expected:
        raise SystemExit("the redacted output is not the output with its secrets replaced")


def _seconds(chunks: list[bytes], redact: Callable[[bytes], bytes]) -> float:
    with TemporaryFile(buffering=0) as file:
        began = time.process_time()
        for chunk in chunks:
            file.write(redact(chunk))
        return time.process_time() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
