"""A worker whose commands give their places back after some seconds: `python -m tests.swarm.hasty 3`."""

import sys

from worker import __main__ as worker
from worker import turns


def main() -> None:
    seconds = float(sys.argv[1])
    turns._PLACE_SECONDS = seconds  # type: ignore[assignment]
    sys.exit(worker.main())


if __name__ == "__main__":
    main()
