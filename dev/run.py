"""`make run`: the whole system on this machine and a sample job through it, until it is stopped."""

import fcntl
import sys
import time
from typing import Any

from deploy.project import LOCAL
from dev.addresses import LOOPBACK, go_without_proxy
from dev.errors import LocalError
from dev.private_files import close_local
from dev.showing import how_to_go_on, run_sample
from dev.signals import Interrupted, Signals
from dev.system import STATE, Ports, System, say


def main() -> int:
    """Starts, shows, serves, stops; returns the exit code."""
    signals = Signals()
    signals.install()
    go_without_proxy(LOOPBACK)
    close_local()
    try:
        # Held until the process ends: two runs would write the same state.
        lock = lock_run()
        system = System(Ports.from_environment(), signals)
    except LocalError as error:
        return fail(error)
    try:
        return serve(system)
    except Interrupted:
        say("stopping" if STATE.exists() else "interrupted; stopping what was started")
        return 0 if STATE.exists() else 130
    except LocalError as error:
        return fail(error)
    finally:
        signals.stopping = True
        system.stop()
        lock.close()


def serve(system: System) -> int:
    """Starts the system, runs the sample job, and watches the processes until one ends."""
    system.start()
    job_id, executor_id = run_sample(system)
    system.announce()
    print(how_to_go_on(system, job_id, executor_id), flush=True)
    while True:
        system.check()
        time.sleep(0.5)


def lock_run() -> Any:
    """Takes the lock that only one run can have. Raises LocalError if another has it."""
    lock = (LOCAL / "run.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LocalError("`make run` is up already in this folder: stop it first") from None
    STATE.unlink(missing_ok=True)
    return lock


def fail(error: Exception) -> int:
    """Prints why it failed; returns the exit code for that."""
    print(f"make run: {error}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
