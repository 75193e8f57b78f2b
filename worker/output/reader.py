"""Reads a command's output into its spool, and takes the secrets out on the way."""

from collections import defaultdict
from collections.abc import Iterable

from worker import metrics
from worker.engine.stream import Frame
from worker.output.redact import Needles, Redactor
from worker.output.spool import Spool


def read(output: Iterable[Frame], spool: Spool, hidden: Needles) -> None:
    """Writes the output without the hidden texts into the spool, as fast as the engine sends it."""
    # One redactor for stdout and one for stderr: their pieces come mixed.
    redactors: dict[int, Redactor] = defaultdict(lambda: Redactor(hidden))
    try:
        for stream, chunk in output:
            metrics.OUTPUT.inc(len(chunk))
            spool.write(redactors[stream].feed(chunk))
    finally:
        for redactor in redactors.values():
            spool.write(redactor.flush())
        spool.complete()
