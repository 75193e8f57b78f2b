"""Runs a part of the system that dies at a certain call: `python -m tests.swarm.killable worker`.

The parts are `worker`, `upkeep`, `closing` and `gateway` (with its arguments). `KILLS` says at which
call for which job, as JSON: `{JobId: [point, "before" or "after"]}`. It does nothing to other jobs.
"""

import contextvars
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import docker
import structlog

from chalicelib import store
from chalicelib.clients import logs, queues
from chalicelib.domain.states import Status
from chalicelib.services import dispatch
from dev import gateway, upkeep
from worker import __main__ as worker
from worker import settler, turns
from worker.output import upload
from worker.output.spool import Spool
from worker.settler import Settler


@dataclass(frozen=True)
class Point:
    """A call at which a process can be made to die."""

    owner: Any
    name: str
    # If one function makes several writes: the status that is written.
    status: Status | None = None
    # How long another thread gets to read the output before the death.
    reading_seconds: float = 0

    def arm(self, job_id: str, when: str) -> None:
        """From now on this process dies at the call, if it is made for that job."""
        call = getattr(self.owner, self.name)

        def deadly(*args: Any, **kwargs: Any) -> Any:
            if not self._is_meant(job_id, args):
                return call(*args, **kwargs)
            if when == "after":
                call(*args, **kwargs)
            time.sleep(self.reading_seconds)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("still alive")

        setattr(self.owner, self.name, deadly)

    def _is_meant(self, job_id: str, args: tuple[Any, ...]) -> bool:
        # A thread of the worker notes its job for the log. Others pass its id or something that has it.
        jobs = [job for arg in args for job in _jobs_of(arg)]
        jobs.append(structlog.contextvars.get_contextvars().get("job_id"))
        return job_id in jobs and self.status in (None, getattr(args[0], "Status", None))


def _jobs_of(arg: Any) -> list[Any]:
    if isinstance(arg, list):
        return [one.target.job_id for one in arg if hasattr(one, "target")]
    return [getattr(arg, "JobId", getattr(arg, "job_id", arg))]


POINTS = {
    "send": Point(dispatch, "send_messages"),
    "create": Point(docker.APIClient, "exec_create"),
    "take": Point(store.results, "take_container"),
    "claim": Point(store.results, "add_result"),
    "start": Point(docker.APIClient, "exec_start"),
    "read": Point(Spool, "write"),
    "running": Point(store.results, "move_result", Status.RUNNING, reading_seconds=3),
    "segment": Point(logs, "put_segment"),
    "append": Point(store.segments, "add"),
    "replace": Point(store.segments, "delete"),
    "assemble": Point(logs, "assemble"),
    "keep": Point(store.outputs, "keep"),
    "finish": Point(store.results, "move_result", Status.FINISHED),
    "count": Point(store.counts, "add_ends"),
    "report": Point(queues, "report_ended"),
    "delete": Point(Settler, "_delete_batch"),
    # The same function: upkeep sends again.
    "resend": Point(dispatch, "send_messages"),
    "pick": Point(store.executions, "take"),
    "note": Point(store.executions, "put_off"),
    "close": Point(store.executions, "close_execution"),
}


def let_threads_know_their_job() -> None:
    """A thread inherits what its parent noted for the log: output is read in another thread."""
    start = threading.Thread.start

    def start_with_context(thread: threading.Thread) -> None:
        context, run = contextvars.copy_context(), thread.run
        thread.run = lambda: context.run(run)
        start(thread)

    threading.Thread.start = start_with_context


def look_after_nothing_but(jobs: Container[str]) -> None:
    """Upkeep sees only these jobs' executions, so that many can die at once, each over its own."""
    everything = store.executions.list_due
    store.executions.list_due = lambda now: (due for due in everything(now) if due.job_id in jobs)


def close_nothing_but(jobs: Container[str]) -> None:
    """The same for the function that closes what workers report. Other messages come again."""

    def close(messages: upkeep.Messages) -> list[str]:
        ours = [one for one in messages if json.loads(one["Body"])["JobId"] in jobs]
        return [one["MessageId"] for one in messages if one not in ours] + close_all(ours)

    close_all = upkeep.close_executions
    upkeep.close_executions = close


def receive_nothing_ahead() -> None:
    """A worker has in hand only the message that it dies over, and none that another has to die over.

    On a slow machine it would fetch a second one before it dies. A command's place is free when it ends,
    so it is settled at once.
    """
    turns.AHEAD = 0
    settler._GATHER_SECONDS = 0


def adopt_nothing() -> None:
    """Workers that still wait for their own deaths leave those that others died over to plain ones."""
    receive = queues.receive

    def receive_new(*args: Any) -> list[queues.Received]:
        return [message for message in receive(*args) if message.first]

    queues.receive = receive_new


def upload_soon() -> None:
    """A worker that dies over an upload need not wait for it."""
    upload._FIRST_PAUSE_SECONDS = 0.5


PARTS: dict[str, Callable[[], Any]] = {
    "worker": worker.main,
    "upkeep": upkeep.main,
    "closing": upkeep.main,
    "gateway": lambda: gateway.main(sys.argv[1:]),
}


def main() -> None:
    """Runs the part that the first argument names, until it dies."""
    kills: dict[str, list[str]] = json.loads(os.environ["KILLS"])
    for job_id, (point, when) in kills.items():
        POINTS[point].arm(job_id, when)
    part = sys.argv.pop(1)
    # One program plays both.
    look_after_nothing_but(kills if part == "upkeep" else [])
    close_nothing_but(kills if part == "closing" else [])
    let_threads_know_their_job()
    receive_nothing_ahead()
    adopt_nothing()
    upload_soon()
    PARTS[part]()


if __name__ == "__main__":
    main()
