"""Virtual time: processes that wait, and the resources that they wait for. Nothing here knows appjobs.

A process is a generator. It yields how many seconds it waits, or `PARKED` until somebody wakes it. A
resource serves in the order of arrival and computes at once when it will be done: so a simulation needs
few events. That is why this is not SimPy, which takes five times as long for the same queues.
"""

import heapq
from collections import deque
from collections.abc import Generator
from itertools import count

# What a process yields if it waits for `Loop.wake`.
PARKED = -1.0
Process = Generator[float, None, None]


class Loop:
    """The clock, and who goes on when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Process]] = []
        self._order = count()
        self._current: Process | None = None

    def spawn(self, process: Process, after: float = 0.0) -> None:
        """Starts a process after so many seconds; or wakes one that is parked."""
        heapq.heappush(self._due, (self.now + after, next(self._order), process))

    def current(self) -> Process:
        """The process that runs now, so that somebody can wake it later."""
        if self._current is None:
            raise RuntimeError("no process runs")
        return self._current

    def run(self, until: float = float("inf")) -> None:
        """Lets time pass until nobody waits for it any more, or until that moment."""
        while self._due and self._due[0][0] <= until:
            self.now, _, process = heapq.heappop(self._due)
            self._current = process
            seconds = next(process, None)
            if seconds is not None and seconds != PARKED:
                self.spawn(process, seconds)


class Server:
    """Takes so many units a second, one after the other: a partition, a table, a processor."""

    def __init__(self, loop: Loop, name: str, rate: float) -> None:
        self.name = name
        self.rate = rate
        # How many units were asked for.
        self.served = 0.0
        self._loop = loop
        self._free = 0.0

    def serve(self, units: float) -> float:
        """Takes the units, and returns in how many seconds they are done."""
        self.served += units
        self._free = max(self._free, self._loop.now) + units / self.rate
        return self._free - self._loop.now


class Bucket:
    """Takes so many a second in the long run, and so many at once beyond that; refuses the others."""

    def __init__(self, loop: Loop, name: str, rate: float, burst: float) -> None:
        self.name = name
        self.rate = rate
        self.taken = 0
        self.refused = 0
        self._loop = loop
        self._burst = burst
        self._left = burst
        self._filled = 0.0

    def take(self) -> bool:
        """Whether one more is taken now."""
        now = self._loop.now
        self._left = min(self._burst, self._left + (now - self._filled) * self.rate)
        self._filled = now
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        self.taken += 1
        return True


class Places:
    """Has so many places; who finds none waits for one, in the order of arrival."""

    def __init__(self, loop: Loop, name: str, places: int) -> None:
        self.name = name
        self.places = places
        self.taken = 0
        # How long places were taken, all together, by those who left.
        self.busy_seconds = 0.0
        self._loop = loop
        self._waiting: deque[Process] = deque()

    def enter(self) -> Process:
        """Waits for a place and takes it: `yield from places.enter()`."""
        if self.taken < self.places:
            self.taken += 1
        else:
            self._waiting.append(self._loop.current())
            yield PARKED  # who leaves hands its place over

    def leave(self, entered: float) -> None:
        """Gives the place, taken at that moment, to who waits longest."""
        self.busy_seconds += self._loop.now - entered
        if self._waiting:
            self._loop.spawn(self._waiting.popleft())
        else:
            self.taken -= 1
