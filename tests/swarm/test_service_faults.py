"""Jobs while DynamoDB, SQS, S3 and KMS fail: nothing runs twice, nothing is lost.

`CHAOS_TARGETS` sets the size of the first test; `-rP` shows what was done to the calls.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import requests

from dev.addresses import free_port
from dev.api import Api
from dev.engine import docker
from dev.tokens import bearer
from tests.support.faults import FORWARDED, REPEATED, Fault, Faults, Rule
from tests.support.waiting import wait_until
from tests.swarm.conftest import Cluster, emptied, reaching_aws_at

TARGETS = int(os.environ.get("CHAOS_TARGETS") or 300)
# Messages whose receipt was cut off come again after a minute, and may be cut off once more.
END_SECONDS = 300 + TARGETS
# Every command appends its execution's line to this file of its container.
FILE = "/tmp/executions"
# So many start jobs at once.
CLIENTS = 5
# More than a fifth of all calls.
MIX = (
    Rule(fault=Fault.REFUSE, share=0.06),
    Rule(fault=Fault.THROTTLE, share=0.06),
    Rule(fault=Fault.CUT_BEFORE, share=0.05),
    Rule(fault=Fault.CUT_AFTER, share=0.05),
    Rule(fault=Fault.DELAY, share=0.04, seconds=2),
    # A caller waits for half a minute, then it tries again.
    Rule(fault=Fault.HANG, share=0.002),
    Rule(fault=Fault.DUPLICATE, share=0.2, service="sqs", operation="SendMessage*", seconds=30),
)
EVERY_MESSAGE_TWICE = Rule(
    fault=Fault.DUPLICATE, service="sqs", operation="SendMessage*", seconds=10
)

Result = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Marked:
    """A job that leaves a line in each container, and what its command prints and exits with."""

    job_id: str
    marker: str
    code: int

    @property
    def output(self) -> str:
        return f"{self.marker} 7\n"


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Faults]:
    """The proxy, at an address that the nodes can reach; without rules yet."""
    log = cluster.directory / "faults.log"
    with Faults(cluster.aws.endpoint, cluster.swarm.host_address, free_port(), log) as running:
        yield running


@pytest.fixture
def system(cluster: Cluster, faults: Faults) -> Iterator[Cluster]:
    """The cluster with all its calls to AWS going through the proxy."""
    with reaching_aws_at(faults.endpoint, cluster) as running:
        yield running
        faults.set()


def marked(cluster: Cluster, index: int) -> Marked:
    """A new job; some take long enough to be seen running, some fail, all have a secret."""
    marker, code = uuid4().hex, index % 3
    script = f'echo {marker} >> {FILE}; sleep 0.{index % 5}; echo "{marker} ${{#0}}"; exit {code}'
    return Marked(cluster.create(f"sh -c '{script}'", SecretArgs=["s3cret!"]), marker, code)


def start(system: Cluster, job: Marked, targets: list[dict[str, str]]) -> str | None:
    """Starts a job once; the execution's id, or None if the answer is an error or does not come."""
    patient = Api(system.api_url, bearer(system.token), seconds=300)
    with suppress(requests.ConnectionError):
        answer = patient.start(job.job_id, targets)
        if answer.status_code == 200:
            return str(answer.json()["Executors"][-1])
    return None


def ask_until_answered(read: Callable[[], T]) -> T:
    """What a read answers once no fault strikes it on the way: a client may ask again."""

    def look() -> T | None:
        with suppress(AssertionError, requests.RequestException):
            return read()
        return None

    return wait_until(look, END_SECONDS, lambda: "no answer")


def end(system: Cluster, job: Marked, executor_id: str) -> list[Result]:
    """The results once all are over."""
    return ask_until_answered(lambda: system.end(job.job_id, executor_id, END_SECONDS))


def assert_whole(system: Cluster, job: Marked, executor_id: str, result: Result) -> None:
    """Asserts that a result says that its command ran to its end, and that its log is complete."""
    assert (result["Status"], result.get("ExitCode")) == ("FINISHED", job.code), result
    assert (result["Output"], result.get("OutputIncomplete")) == (job.output, None), result
    container = result["ContainerId"]
    log = ask_until_answered(lambda: system.log(job.job_id, executor_id, container))
    assert log.text == job.output


def listed(cluster: Cluster, job: Marked) -> list[str]:
    """The job's executions, also those whose start was answered with an error."""
    return cluster.executions(job.job_id)


def lines(cluster: Cluster) -> dict[str, list[str]]:
    """What the commands left in each container."""
    return {
        container: docker(
            node.docker_host, "exec", container, "sh", "-c", f"touch {FILE}; cat {FILE}"
        ).split()
        for node in cluster.swarm.nodes
        for container in node.containers()
    }


def assert_ran_once(left: dict[str, list[str]], job: Marked, results: list[Result]) -> None:
    for result in results:
        count = left[result["ContainerId"]].count(job.marker)
        assert count == 1 or (count == 0 and result["Status"] != "FINISHED"), (count, result)


def report(faults: Faults) -> float:
    """Prints what became of the calls; returns the share of those that a fault struck."""
    total = faults.calls() - faults.calls(REPEATED)
    for outcome in (FORWARDED, *Fault):
        calls = faults.calls(outcome)
        print(f"{outcome:<10} {calls:>7} {calls / total:7.1%}")
    return 1 - faults.calls(FORWARDED) / total


@pytest.mark.timeout(2 * END_SECONDS)
def test_accepted_starts_come_to_an_end_while_a_fifth_of_all_calls_fails(
    cluster: Cluster, system: Cluster, faults: Faults
) -> None:
    targets = cluster.targets()
    jobs = [marked(cluster, index) for index in range(TARGETS // len(targets))]
    faults.set(*MIX)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda job: start(system, job, targets), jobs))
        started = [(job, executor) for job in jobs for executor in listed(cluster, job)]
        outcomes = list(pool.map(lambda each: end(system, *each), started))
        answered = [
            (job, executor) for job, executor in zip(jobs, answers, strict=True) if executor
        ]
        # No start was accepted twice, and none that was answered is missing.
        assert len({job for job, _ in started}) == len(started)
        assert set(started) >= set(answered)
        accepted = [
            (*each, result)
            for each, results in zip(started, outcomes, strict=True)
            if each in answered
            for result in results
        ]
        list(pool.map(lambda each: assert_whole(system, *each), accepted))
    print(f"{len(jobs)} starts: {len(answered)} answered with 200, {len(started)} listed")
    assert report(faults) > 0.2
    left = lines(cluster)
    for (job, _), results in zip(started, outcomes, strict=True):
        assert_ran_once(left, job, results)


@pytest.mark.timeout(END_SECONDS)
def test_messages_that_come_twice_late_and_out_of_order_run_once(
    cluster: Cluster, system: Cluster, faults: Faults
) -> None:
    targets = cluster.targets()
    jobs = [marked(cluster, index) for index in range(20)]
    faults.set(EVERY_MESSAGE_TWICE)
    started = [(job, system.start(job.job_id, targets)) for job in jobs]
    outcomes = [end(system, *each) for each in started]
    for each, results in zip(started, outcomes, strict=True):
        for result in results:
            assert_whole(system, *each, result)
    wait_until(lambda: repeated(faults) and emptied(cluster), 120, lambda: str(faults.counts()))
    report(faults)
    left = lines(cluster)
    for (job, executor), results in zip(started, outcomes, strict=True):
        assert_ran_once(left, job, results)
        assert cluster.inspect(job.job_id, executor) == results


def repeated(faults: Faults) -> bool:
    """Whether all second copies were sent; there must be some."""
    return 0 < faults.calls(Fault.DUPLICATE) == faults.calls(REPEATED)


@pytest.mark.timeout(END_SECONDS)
def test_logs_that_s3_refuses_for_a_while_are_whole_in_the_end(
    cluster: Cluster, system: Cluster, faults: Faults
) -> None:
    targets = cluster.targets()
    numbers = 1_000_000
    # More than the 5 MiB of a segment: one is put as a whole, the rest after a copy of it.
    expected = "".join(f"{number}\n" for number in range(1, numbers + 1)).encode()
    marker = uuid4().hex
    job_id = cluster.create(f"sh -c 'seq {numbers}; echo {marker} >> {FILE}'")
    faults.set(Rule(fault=Fault.REFUSE, service="s3"))
    executor_id = system.start(job_id, targets)
    wait_until(
        lambda: all(marker in left for left in lines(cluster).values()), 60, lambda: "not over"
    )
    refused = faults.calls(Fault.REFUSE)
    wait_until(
        lambda: faults.calls(Fault.REFUSE) > refused + 3 * len(targets),
        60,
        lambda: "nobody stores the logs",
    )
    under_way = [result["Status"] for result in cluster.inspect(job_id, executor_id)]
    assert "FINISHED" not in under_way
    faults.set()
    report(faults)
    for result in cluster.end(job_id, executor_id, 120):
        assert (result["Status"], result.get("ExitCode")) == ("FINISHED", 0), result
        assert (result["OutputSize"], result.get("OutputIncomplete")) == (len(expected), None)
        log = cluster.log(job_id, executor_id, result["ContainerId"])
        assert log.content == expected
