"""What `make run` shows: the sample job's results, a log, and commands to go on with."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

from deploy.project import LOCAL
from dev import sample
from dev.api import Api, answer_of
from dev.system import ENVIRONMENT, System, say
from dev.tokens import bearer
from dev.waiting import wait_for

UNDER_WAY = ("STARTING", "CREATED", "RUNNING")
JOB_SECONDS = 60.0


def run_sample(system: System) -> tuple[str, str]:
    """Runs the sample job in the sample containers and prints its results and one log.

    Returns JobId and ExecutorId. Raises LocalError.
    """
    api = Api(system.api_url, bearer(system.token))
    job = _ensure_job(api)
    job_id = job["JobId"]
    say(f"the job {job['Name']!r}: {job['Cmd']} {' '.join(job['SecretArgs'])}")
    targets = [{"ContainerId": container, "NodeId": system.node} for container in system.containers]
    started = answer_of(lambda: api.start(job_id, targets)).json()
    executor_id = str(started["Executors"][-1])
    results = wait_for_results(system, api, job_id, executor_id)
    print(f"\n{table(results)}\n")
    container_id = results[0]["ContainerId"]
    log = answer_of(lambda: api.log(job_id, executor_id, container_id, follow=True)).content
    print(f"The log of {container_id[:12]}:")
    print(indented(log.decode(errors="replace")), flush=True)
    return job_id, executor_id


def _ensure_job(api: Api) -> dict[str, Any]:
    """The sample job. It is created if its application has no job of that name."""
    jobs = answer_of(lambda: api.jobs(sample.JOB["AppName"])).json()
    found = [job for job in jobs if job["Name"] == sample.JOB["Name"]]
    return dict(found[0] if found else answer_of(lambda: api.create(sample.JOB)).json())


def wait_for_results(
    system: System, api: Api, job_id: str, executor_id: str
) -> list[dict[str, Any]]:
    """Polls until every target has ended; returns the results."""
    results: list[dict[str, Any]] = []

    def ended() -> bool:
        results[:] = answer_of(lambda: api.inspect(job_id, executor_id)).json()["Result"]
        return all(result["Status"] not in UNDER_WAY for result in results)

    wait_for(ended, JOB_SECONDS, "the sample job", *(process for _, process in system.watched))
    return results


def table(results: list[dict[str, Any]]) -> str:
    """The results, one on each line."""
    rows = [("CONTAINER", "NODE", "STATUS", "EXIT", "BYTES", "OUTPUT"), *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        for row in rows
    )


def _row(result: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    output = result.get("Output") or result.get("E") or ""
    return (
        result["ContainerId"][:12],
        result["NodeId"][:12],
        result["Status"],
        str(result.get("ExitCode", "-")),
        str(result.get("OutputSize", "-")),
        (output.splitlines() or [""])[0],
    )


def how_to_go_on(system: System, job_id: str, executor_id: str) -> str:
    """Commands to copy, with the ids of what is there."""
    jobs = f"{system.api_url}/api/jobs"
    target = {"ContainerId": system.containers[0], "NodeId": system.node}
    start = shlex.quote(json.dumps({"Target": [target]}))
    return f"""
Ready: {system.api_url}, AWS at {system.aws.endpoint}, logs in {_shown(LOCAL)}. Go on with:

  AUTH='Authorization: Bearer {system.token}'
  curl -H "$AUTH" {jobs}
  curl -H "$AUTH" -X POST {jobs}/{job_id}/start -H 'Content-Type: application/json' -d {start}
  curl -H "$AUTH" {jobs}/{job_id}/inspect/{executor_id}
  curl -H "$AUTH" -L '{jobs}/{job_id}/log/{executor_id}?ContainerId={system.containers[0]}'

Another worker: set -a; . {_shown(ENVIRONMENT)}; set +a; HEALTH_PORT=9465 .venv/bin/python -m worker
Ctrl-C stops all of it.
"""


def indented(text: str) -> str:
    """The lines of a text, set apart from ours."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def _shown(path: Path) -> str:
    return os.path.relpath(path)
