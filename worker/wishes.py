"""Brings what people want of running executions to those who do it. One thread per process."""

import threading
import time

from chalicelib import store
from chalicelib.domain.segments import log_name
from chalicelib.store.models import Wishes
from chalicelib.store.wishes import Ids
from worker.health import Pulse
from worker.output.upload import Uploader
from worker.patience import tolerated

_TURN_SECONDS = 2


class WishReader(threading.Thread):
    """Every 2 s, reads the wishes of the executions that run here, all at once; of none, nothing.

    A wish is brought again each time, as long as it is stored.
    """

    def __init__(self, pulse: Pulse, uploader: Uploader) -> None:
        super().__init__(name="wishes", daemon=True)
        self._pulse = pulse
        self._uploader = uploader
        # One for each kind of wish.
        self._handlers = [self._watch, self._assemble]

    def run(self) -> None:
        while True:
            time.sleep(_TURN_SECONDS)
            self._pulse.beat()
            with tolerated("wishes"):
                self._turn()

    def _turn(self) -> None:
        for execution, wishes in store.wishes.read_wishes(self._uploader.executions()):
            self._pulse.beat()
            for handle in self._handlers:
                handle(execution, wishes)

    def _watch(self, execution: Ids, wishes: Wishes) -> None:
        if wishes.WatchedUntil is not None:
            seconds = float(wishes.WatchedUntil) - time.time()
            if seconds > 0:
                self._uploader.watch(*execution, float(wishes.WatchedSince), seconds)

    def _assemble(self, execution: Ids, wishes: Wishes) -> None:
        for container_id, wished in wishes.Assemble or []:
            self._uploader.assemble(log_name(*execution, container_id), wished)
