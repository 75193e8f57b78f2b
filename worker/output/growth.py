"""A log that grows: brings what is in a spool into the log, in segments, and puts the log together.

New output goes up in small pieces. As soon as a file of the spool is closed, it goes up once more, as one
large segment that replaces the pieces. So each byte is uploaded at most twice, and S3 copies each byte at
most once: when the log is put together at the command's end. If somebody wants all of it at once before
that, it is put together once more.
"""

import threading
from contextlib import nullcontext
from dataclasses import dataclass

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.segments import INLINE_BYTES, Segment, Span
from worker.output.files import Section, SpoolFile
from worker.output.spool import Spool

# If the open file has so many pieces, it is closed as soon as that is possible: a log that is watched
# for days has not too many segments either.
_MAX_PIECES = 500
# How many items DynamoDB deletes in one call.
_DELETED_AT_ONCE = 25


@dataclass(frozen=True)
class _Piece:
    """A small segment of the file that is open, or was open a moment ago."""

    segment: Segment
    # Whether its bytes are in its item.
    is_inline: bool


class GrowingLog:
    """One target's log, while its command runs and at its end.

    Two threads may work for it at once: one uploads pieces, the other one large segments. Each step may
    be repeated after a failure.
    """

    def __init__(self, name: str, expires: int, spool: Spool) -> None:
        self.name = name
        self.spool = spool
        self._expires = expires
        self._lock = threading.Lock()
        self._pieces: list[_Piece] = []
        self._large: list[Segment] = []
        # The keys of all objects that are, or may be, in S3.
        self._objects: set[str] = set()
        # Whether the log is one object in S3, and whether its readers can know that.
        self._has_segments = self._is_whole = self._is_noted = False

    def upload_pieces(self, hurry: bool) -> int:
        """Uploads what is new, in small pieces. Returns how many requests that took.

        If there is no hurry, it uploads nothing that comes after a closed file.
        """
        requests, end = 0, self.spool.kept
        # What is printed meanwhile is for the next time: else a command that prints on keeps us here.
        while self.spool.uploaded < end and (new := self.spool.open_new(also_closed=hurry)):
            file_first, first, section = new
            with section:
                requests += self._upload_piece(file_first, first, section)
            self.spool.note_uploaded(first + len(section))
        if len(self._pieces) >= _MAX_PIECES:
            self.spool.close_file()
        return requests

    def _upload_piece(self, file_first: int, first: int, section: Section) -> int:
        segment = Segment(first, len(section))
        if segment.size > INLINE_BYTES:
            self._store(segment, section)
            self._add_piece(_Piece(segment, is_inline=False))
            return 2
        content = section.read()
        if not self._append(file_first, segment, content):
            self._add(Segment(first, segment.size, content))
            self._add_piece(_Piece(segment, is_inline=True))
        return 1

    def _append(self, file_first: int, more: Segment, content: bytes) -> bool:
        """Makes the last piece longer, if it is of the same file and its item has room."""
        with self._lock:
            last = self._pieces[-1] if self._pieces else None
        if last is None or not last.is_inline or last.segment.first < file_first:
            return False
        longer = Segment(last.segment.first, last.segment.size + more.size)
        if last.segment.end != more.first or longer.size > INLINE_BYTES:
            return False
        if not store.segments.append(self.name, last.segment, content):
            return False
        with self._lock:
            # It may be gone: the other thread may have replaced it just now.
            self._pieces = [piece for piece in self._pieces if piece is not last]
        self._add_piece(_Piece(longer, is_inline=True))
        return True

    def _add_piece(self, piece: _Piece) -> None:
        with self._lock:
            self._pieces.append(piece)

    def _store(self, segment: Segment, section: Section) -> None:
        """Stores a segment: first its bytes, then its item."""
        with self._lock:
            self._objects.add(self._key(segment))
        logs.put_segment(self.name, segment, section)
        self._add(segment)

    def _add(self, segment: Segment) -> None:
        store.segments.add(self.name, segment, self._expires)
        self._has_segments = True

    def _key(self, segment: Segment) -> str:
        return logs.segment_key(self.name, segment)

    def upload_large(self) -> int:
        """Uploads the closed files. Returns how many requests it took to delete what they replace."""
        requests = 0
        while file := self.spool.closed_file:
            requests += self._upload_file(file)
        return requests

    def _upload_file(self, file: SpoolFile) -> int:
        segment = Segment(file.first, file.size)
        with file.open(file.first) as section:
            self._store(segment, section)
        with self._lock:
            self._large.append(segment)
        self.spool.remove(file)
        with self._lock:
            firsts = [p.segment.first for p in self._pieces if p.segment.first < file.end]
            self._pieces = [p for p in self._pieces if p.segment.first >= file.end]
        return self._delete_items([first for first in firsts if first > file.first])

    def _delete_items(self, firsts: list[int]) -> int:
        # The one with the same beginning has the same item as the large segment.
        if firsts:
            store.segments.delete(self.name, firsts)
        return -(-len(firsts) // _DELETED_AT_ONCE)

    def assemble_so_far(self) -> None:
        """Puts together what the log has by now, for somebody who wants all of it at once."""
        rest = self._open_rest()
        size = self._large_bytes + (len(rest) if rest else 0)
        if size:
            self._assemble(size, rest)
            store.segments.set_assembled(self.name, size, self._expires)

    def _open_rest(self) -> Section | None:
        """What comes after the large segments; uploads those before."""
        while True:
            self.upload_large()
            first, rest = self.spool.open_rest()
            # If the command closed one more file just now, that would be missing in between.
            if first == self._large_bytes:
                return rest
            if rest:
                rest.close()

    def finish(self) -> None:
        """Puts the whole log together. The caller sees to it that nothing is written or uploaded now."""
        size = self.spool.kept
        if size and not self._is_whole:
            self._assemble(size, self._open_rest())
            self.spool.note_uploaded(size)
        self._is_whole = True

    @property
    def _large_bytes(self) -> int:
        return self._large[-1].end if self._large else 0

    def _assemble(self, size: int, rest: Section | None) -> None:
        spans = [Span(segment, 0, segment.size) for segment in self._large]
        with rest or nullcontext():
            logs.assemble(logs.whole_key(self.name, size), self.name, spans, rest)

    def note_whole(self, known_as_whole: bool) -> None:
        """Says for readers that the whole log is there, unless its result will say that."""
        if self._has_segments or not known_as_whole:
            store.segments.set_assembled(self.name, self.spool.kept, self._expires)
        self._is_noted = True

    def note_caught_up(self, wish: float) -> None:
        """Says for those who watch since then that the segments are up to date."""
        store.segments.set_caught_up(self.name, wish, self._expires)

    def take_garbage(self) -> list[str]:
        """The keys of objects that nobody needs any more. The caller deletes them."""
        with self._lock:
            needed = set()
            if not self._is_noted:
                pieces = [piece.segment for piece in self._pieces]
                needed = set(map(self._key, [*pieces, *self._large]))
            garbage = sorted(self._objects - needed)
            self._objects &= needed
        return garbage
