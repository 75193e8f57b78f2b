"""What dead workers of this machine left in their spools: it goes into the logs before it is removed.

Each spool has a label that says which log it is of, and its files' names say where in the log they begin.
What is in them is redacted already.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import structlog

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import INLINE_BYTES, LogState, Segment, Span, total
from worker.output.files import SpoolFile
from worker.output.folder import lock_dead, locked, open_private
from worker.output.spool import LABEL
from worker.patience import tolerated

log = structlog.stdlib.get_logger(__name__)

# Between two tries to salvage what is left of a folder.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 300.0


class Salvager:
    """Brings the spools of dead processes into their logs."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._claiming = threading.Lock()
        self._spools: list[_DeadSpool] = []

    def claim(self) -> None:
        """Takes the folders of dead processes. Threads salvage them, however long that takes."""
        with (
            tolerated("claim of spools"),
            self._claiming,
            locked(self._parent / "lock"),
        ):
            for path, lock in lock_dead(self._parent):
                spools = list(_find_spools(path))
                self._spools += spools
                arguments = (path, lock, spools)
                name = f"salvage {path.name[:8]}"
                threading.Thread(target=_clear, args=arguments, name=name, daemon=True).start()

    def salvage(self, log_name: str) -> None:
        """Brings into this log what dead processes of this machine have of it. Raises if that fails."""
        self.claim()
        for spool in list(self._spools):
            if spool.log == log_name:
                spool.salvage()
        with self._claiming:
            self._spools = [spool for spool in self._spools if not spool.is_done]


def put_together(name: str, expires: int, state: LogState, spans: list[Span]) -> int:
    """Makes one object of what a log's segments have, if there is none yet. Returns its size."""
    size = total(spans)
    if state.assembled < size:
        logs.assemble(logs.whole_key(name, size), name, spans)
        store.segments.set_assembled(name, size, expires)
    return max(size, state.assembled)


def _clear(path: Path, lock: FileIO, spools: list["_DeadSpool"]) -> None:
    """Salvages the spools of a folder, and removes it. If a spool fails, the others go first."""
    pause = _FIRST_PAUSE_SECONDS
    while left := [spool for spool in spools if not spool.is_done]:
        for spool in left:
            with tolerated("salvage", log=spool.log):
                spool.salvage()
        if any(not spool.is_done for spool in left):
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    # What has no label is of no log.
    shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _find_spools(folder: Path) -> Iterator["_DeadSpool"]:
    for label in folder.glob(f"*{LABEL}"):
        try:
            with open_private(label, "r") as file:
                said = json.loads(file.readall())
            yield _DeadSpool(label, str(said["Log"]), int(said["ExpiresAt"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("spool without a label", path=str(label), error=str(error))


class _DeadSpool:
    """The spool of a log in a dead process's folder."""

    def __init__(self, label: Path, log_name: str, expires: int) -> None:
        self.log = log_name
        self.is_done = False
        self._label = label
        self._expires = expires
        self._salvaging = threading.Lock()

    def salvage(self) -> None:
        """Brings what it has into the log, and removes it; once, whoever asks."""
        with self._salvaging:
            if not self.is_done:
                if time.time() < self._expires:
                    self._upload()
                self._remove()
                self.is_done = True

    def _files(self) -> list[SpoolFile]:
        found = self._label.parent.glob(f"{self._label.stem}.*")
        files = [
            SpoolFile(path, int(path.suffix[1:]), path.stat().st_size)
            for path in found
            if path != self._label
        ]
        return sorted(files, key=lambda file: file.first)

    def _upload(self) -> None:
        """Adds to the log what its segments do not have yet, unless the log is whole."""
        state, spans = store.segments.list_segments(self.log)
        files, end = self._files(), total(spans)
        if files and files[-1].end <= state.assembled:
            return
        for file in files:
            if file.first <= end < file.end:
                self._upload_rest(file, end)
                end = file.end
        # The log does not grow any more: who wants a long one as one object need not wait for the
        # command's end. If somebody put it together before, the object lacks what we added.
        if state.assembled < end and (state.assembled or end > INLINE_BYTES):
            put_together(self.log, self._expires, *store.segments.list_segments(self.log))

    def _upload_rest(self, file: SpoolFile, start: int) -> None:
        with file.open(start) as section:
            segment = Segment(start, len(section))
            if segment.size <= INLINE_BYTES:
                segment = Segment(start, segment.size, section.read())
            else:
                logs.put_segment(self.log, segment, section)
        store.segments.add(self.log, segment, self._expires)

    def _remove(self) -> None:
        for file in self._files():
            file.path.unlink()
        self._label.unlink()
