"""API and workers of neighbouring versions: each understands what the other one stores and sends."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib import store
from chalicelib.clients.queues import TargetMessage, decode
from chalicelib.domain.ends import End
from chalicelib.domain.segments import Segment, log_name
from chalicelib.domain.states import Reason, Status
from chalicelib.domain.versions import WORKER_VERSION
from chalicelib.schemas.history import HistoryRequest
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import closing, downloads, history, inspection, jobs
from tests.support import stored
from tests.support.builders import build_result, serve_node
from tests.support.clock import NOW
from tests.unit.callers import ADMIN
from tests.unit.executions import start

pytestmark = pytest.mark.usefixtures("aws", "clock")

# What each version stored, and what its readers got of it. A file is made once, with RECORD=1 and by the
# version in its name, and never changes. It may go when the version after the next is out.
STORED = Path(__file__).parent / "stored"
# What a later version may add to an item: any type.
NEWS: dict[str, Any] = {"News": {"M": {"Deep": {"L": [{"N": "1"}, {"NULL": True}]}}}}
SECRET = "s3cret value"
EXPIRES = int(NOW) + 86_400


def live_a_little() -> dict[str, list[str]]:
    """Does what fills the tables. Returns the ids of what readers can ask for."""
    serve_node("n1")
    request = JobRequest(
        AppName="a", Name="n", Cmd="sh -c 'echo hi'", Env=["A=b"], SecretArgs=[SECRET]
    )
    job_id = jobs.create_job(ADMIN, request).JobId
    small = start(job_id, ("c1", "n1"), ("c2", "n9"))
    large = start(job_id, *((f"c{number}", "n1") for number in range(40)))
    finish(job_id, small, "c1", b"hi\n")
    finish(job_id, large, "c7", b"more than the item has room for " * 20)
    fields = {"Reason": Reason.LOST, "E": "nobody knows", "EndTime": NOW + 3}
    build_result(job_id, large, "c8", Status=Status.RUNNING_FAILED, ID="e2", **fields).save()
    build_result(job_id, large, "c9", Status=Status.RUNNING, ID="e3", StartTime=NOW).save()
    log = log_name(job_id, large, "c9")
    store.segments.add(log, Segment(0, 6, b"so far"), EXPIRES)
    execution = store.executions.get_execution(job_id, large)
    store.segments.set_caught_up(log, store.wishes.watch(execution, NOW), EXPIRES)
    return {"JobId": [job_id], "ExecutorIds": [small, large]}


def finish(job_id: str, executor_id: str, container: str, output: bytes) -> None:
    """Stores how a target ended, and counts it."""
    ended = {"StartTime": NOW + 1, "EndTime": NOW + 2, "OutputSize": len(output)}
    said = {"ExitCode": 0, "Pid": 7}
    result = build_result(
        job_id, executor_id, container, Status=Status.FINISHED, ID="e1", Inspect=said, **ended
    )
    store.outputs.keep(result, output)
    result.save()
    store.counts.add_ends(job_id, executor_id, 0, [End(0, True, NOW + 2)], EXPIRES)
    body = msgspec.json.encode({"JobId": job_id, "ExecutorId": executor_id}).decode()
    assert closing.close_ended({"m1": body}) == []


def read(ids: dict[str, list[str]]) -> dict[str, Any]:
    """What readers get."""
    (job_id,) = ids["JobId"]
    inspects = [inspection.inspect_execution(ADMIN, job_id, id) for id in ids["ExecutorIds"]]
    log = downloads.read_log(ADMIN, job_id, ids["ExecutorIds"][1], "c9", lambda content: True)
    return msgspec.to_builtins(
        {
            "Jobs": jobs.list_jobs(ADMIN, "a"),
            "History": history.read_history(ADMIN, job_id, HistoryRequest()),
            "Inspects": inspects,
            "Log": log.content,
        }
    )


def test_this_version_has_its_record() -> None:
    path = STORED / f"version-{WORKER_VERSION}.json"
    if "RECORD" in os.environ and not path.exists():
        ids = live_a_little()
        stored.save(path, {"Ids": ids, "Items": stored.read_all(), "Answers": read(ids)})
    assert path.exists()


@pytest.mark.parametrize("path", sorted(STORED.iterdir()), ids=lambda path: path.stem)
def test_readers_get_what_that_version_stored(path: Path) -> None:
    record = stored.load(path)
    stored.write_all(record["Items"])
    assert read(record["Ids"]) == record["Answers"]


def add_news() -> None:
    """Adds an attribute that this version does not know to all items."""
    items = stored.read_all()
    stored.write_all({table: [item | NEWS for item in some] for table, some in items.items()})


def test_items_may_have_more_than_we_know() -> None:
    """As a later version stores them."""
    ids = live_a_little()
    before = read(ids)
    add_news()
    assert read(ids) == before
    assert start(ids["JobId"][0], ("c1", "n1"))


def test_a_message_may_say_more_than_we_know() -> None:
    known = '"JobId":"j1","ExecutorId":"1.000000","ContainerId":"c1","Part":2'
    ours = TargetMessage("j1", "1.000000", "c1", part=2)
    assert decode(f'{{{known},"News":{{"Deep":[1]}}}}') == decode(f"{{{known}}}") == ours
