"""Where the output of this worker's commands goes, and from where it comes if a worker died."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from worker.output.growth import GrowingLog
from worker.output.salvage import Salvager
from worker.output.spool import SpoolDirectory
from worker.output.upload import Uploader


@dataclass(frozen=True)
class Outputs:
    """The outputs of all commands of one process."""

    spools: SpoolDirectory
    uploader: Uploader
    salvager: Salvager

    @contextmanager
    def open(
        self, exec_id: str, log: str, expires: int, tail: int, log_bytes: int | None
    ) -> Iterator[GrowingLog]:
        """A log whose spool takes output, which is uploaded, until the end of the block."""
        spool = self.spools.open(exec_id, log, expires, tail, log_bytes)
        with closing(spool):
            growing = GrowingLog(log, expires, spool)
            with self.uploader.following(growing):
                yield growing
