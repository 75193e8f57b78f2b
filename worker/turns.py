"""Whose turn it is: the targets in hand that wait, the targets that run, and the limits on both."""

import threading
import time
from collections import Counter, deque
from itertools import chain
from typing import NamedTuple

from chalicelib.clients.queues import Received
from chalicelib.config import settings

# A command keeps its place for this long. After that it costs only a look now and then.
_PLACE_SECONDS = 60
# How many messages are received before there is a place for them: as many as the targets of one start.
AHEAD = 1000


class Turn(NamedTuple):
    """A message whose turn it is. If it has no place, its target may only be adopted, and not started."""

    message: Received
    has_place: bool


class Turns:
    """The targets of one engine: at most `places` run in their first minute, and `max_running` in all.

    An application that has fewer places comes first. Applications that have the same number take turns.
    Of `max_running`, an application may have as many as it leaves free for others.

    The target of a message that came again may run already. Such messages come before all new ones and
    need no place: the engine forgets in some minutes how a command ended.
    """

    def __init__(self, places: int, max_running: int) -> None:
        self._places = places
        self._max_running = max_running
        self._changed = threading.Condition()
        self._again: deque[Received] = deque()
        # New messages by application. After its turn, an application goes to the end.
        self._waiting: dict[str, deque[Received]] = {}
        # When each message got its place. The key is the message and not its target: a target's second
        # message may have its turn before the first one leaves.
        self._running: dict[Received, float] = {}
        self._closed = False

    def put(self, message: Received) -> bool:
        """Lets a message wait for its turn; False after `close`."""
        with self._changed:
            if not self._closed:
                waiting = self._waiting_of(message) if message.first else self._again
                waiting.append(message)
                self._changed.notify_all()
            return not self._closed

    def put_off(self, message: Received) -> bool:
        """Lets a message whose target does not run yet wait for a place; False after `close`."""
        with self._changed:
            del self._running[message]
            if not self._closed:
                self._waiting_of(message).append(message)
            self._changed.notify_all()
            return not self._closed

    def take(self, seconds: float) -> Turn | None:
        """Waits for the next message whose turn it is; None if there is none within `seconds`."""
        with self._changed:
            return self._changed.wait_for(self._take, seconds)

    def _take(self) -> Turn | None:
        now = time.monotonic()
        if self._again and len(self._running) < self._max_running:
            message = self._again.popleft()
            self._running[message] = now - _PLACE_SECONDS
            return Turn(message, False)
        app = self._next()
        if app is None:
            return None
        messages = self._waiting.pop(app)
        message = messages.popleft()
        if messages:
            self._waiting[app] = messages
        self._running[message] = now
        return Turn(message, True)

    def _waiting_of(self, message: Received) -> deque[Received]:
        return self._waiting.setdefault(message.target.app_name, deque())

    def give_place_back(self, message: Received) -> None:
        """Frees the message's place before its minute is over: it only waits for its target's end."""
        with self._changed:
            self._running[message] -= _PLACE_SECONDS
            self._changed.notify_all()

    def leave(self, message: Received) -> None:
        """Stops counting the message."""
        with self._changed:
            del self._running[message]
            self._changed.notify_all()

    def room(self, seconds: float) -> int:
        """Waits for room. Returns how many more messages may wait; 0 if `seconds` pass without room."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting < AHEAD, seconds)
            return AHEAD - self.waiting

    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        with self._changed:
            return bool(self._running) or self.waiting > 0

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._again) + sum(map(len, self._waiting.values()))

    @property
    def free(self) -> int:
        """How many more messages would have their turn at once."""
        with self._changed:
            left = min(self._places - self._taken().total(), self._max_running - len(self._running))
            return max(left - self.waiting, 0)

    def close(self) -> list[Received]:
        """Gives no more turns from now on; returns the messages that waited for theirs."""
        with self._changed:
            self._closed = True
            waited = [*self._again, *chain.from_iterable(self._waiting.values())]
            self._again.clear()
            self._waiting.clear()
            self._changed.notify_all()
            return waited

    def wait_for_all(self) -> None:
        """Returns when no target runs any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _next(self) -> str | None:
        """The application whose turn it is; None if no application may have one."""
        taken = self._taken()
        if not self._waiting or not self._has_place(taken):
            return None
        running = Counter(message.target.app_name for message in self._running)
        ready = [app for app in self._waiting if self._may_run(app, running[app])]
        return min(ready, key=lambda app: taken[app], default=None)

    def _taken(self) -> Counter[str]:
        """How many places each application has."""
        oldest = time.monotonic() - _PLACE_SECONDS
        young = (message for message, since in self._running.items() if since > oldest)
        return Counter(message.target.app_name for message in young)

    def _has_place(self, taken: Counter[str]) -> bool:
        return taken.total() < self._places and len(self._running) < self._max_running

    def _may_run(self, app: str, running: int) -> bool:
        """Whether the application may have one more. If its next target is too late, it may: that target
        is soon over.
        """
        created = float(self._waiting[app][0].target.executor_id)
        late = time.time() > created + settings.delivery_deadline_seconds
        return late or running < self._max_running - len(self._running)
