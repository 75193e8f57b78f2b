"""A worker one of whose loops dies once a file is there: `python -m tests.swarm.mortal LOOP FILE`."""

import sys
from pathlib import Path
from typing import Any

from worker import __main__ as worker
from worker import heartbeat, lease
from worker.health import Health, Pulse
from worker.output import upload


def main() -> None:
    """`LOOP` is the beginning of the loop's name."""
    name, fatal = sys.argv[1], Path(sys.argv[2])

    class Mortal(Pulse):
        struck = False

        def beat(self) -> None:
            if fatal.exists() and not self.struck:
                self.struck = True
                raise AssertionError("a mistake that nobody foresaw")
            super().beat()

    def pulse(health: Health, loop: str) -> Pulse:
        found = Mortal() if loop.startswith(name) else Pulse()
        health._pulses[loop] = found
        return found

    # So that nobody has to wait for 20 s.
    quick: Any = 0.5
    lease._INTERVAL_SECONDS = heartbeat._TURN_SECONDS = upload._TURN_SECONDS = quick
    Health.pulse = pulse  # type: ignore[method-assign]
    sys.exit(worker.main())


if __name__ == "__main__":
    main()
