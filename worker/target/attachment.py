"""Stays with a command while its output is open, and says `RUNNING`."""

import threading
from collections.abc import Callable

import structlog

from chalicelib import store
from chalicelib.domain.states import Status
from chalicelib.store.models import Result
from worker.output.spool import Spool

log = structlog.stdlib.get_logger(__name__)

# A command that ends sooner never shows as RUNNING: that saves one write per target.
_RUNNING_AFTER_SECONDS = 0.25
# Between two looks at whether the output has ended.
_LOOK_SECONDS = 3.0


class Attachment:
    """Stays with a command that this worker starts, from the start to the end of its output."""

    def __init__(self, start_and_read: Callable[[], None], spool: Spool, result: Result) -> None:
        """Starts nothing yet. `start_and_read` starts the command, and returns when its output ends."""
        self._start_and_read = start_and_read
        self._spool = spool
        self._result = result
        name = f"read {result.ID[:12]}"
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._said_running = False
        # Why the output broke off, if it did.
        self.error: Exception | None = None

    def begin(self) -> None:
        """Starts the command; says that it runs if it does not end at once."""
        self._reader.start()
        self._reader.join(_RUNNING_AFTER_SECONDS)
        if self._reader.is_alive():
            self._result.Status = Status.RUNNING
            self._say_running()

    def _read(self) -> None:
        try:
            self._start_and_read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the target still needs its end
            self.error = error

    @property
    def waits_for_room(self) -> bool:
        """Whether the reader may be waiting for room in the spool: then it has more output."""
        return bool(self._spool.waiting)

    @property
    def output_incomplete(self) -> bool:
        """Whether some of the output may never have reached us."""
        return self.error is not None or self._spool.end_in_doubt

    def stay(self) -> bool:
        """Waits some seconds. Returns True if the output has ended."""
        self._reader.join(_LOOK_SECONDS)
        if not self._reader.is_alive():
            return True
        if not self._said_running:
            self._say_running()
        return False

    def _say_running(self) -> None:
        """Stores a status that is only news: whether that works or not, the command runs."""
        try:
            store.results.move_result(self._result)
        except Exception:  # the end of the command is stored with more patience
            log.warning("status not stored", status=self._result.Status, exc_info=True)
        else:
            self._said_running = True


class NoAttachment:
    """Takes the place of the attachment that an adopted command cannot have.

    An engine lets nobody attach a second time to an exec that was started.
    """

    error = None
    waits_for_room = False
    # The log has only what the command's former worker read.
    output_incomplete = True

    def stay(self) -> bool:
        """There is nothing to wait for."""
        return True
