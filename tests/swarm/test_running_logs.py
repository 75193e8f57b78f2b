"""Logs of running commands: how far they are behind, and how long ones are downloaded."""

import hashlib
import shlex
from collections.abc import Callable, Iterator

import pytest

from dev.engine import docker
from tests.support.waiting import wait_until
from tests.swarm.conftest import Cluster

# Prints numbers from 1 on, `printed` says which was the last, until `stop` is there.
SLOW = """
rm -f /tmp/stop; i=0
until [ -e /tmp/stop ]; do
  i=$((i + 1)); echo $i; echo $i > /tmp/printing; mv /tmp/printing /tmp/printed; sleep 0.2
done
rm /tmp/stop
"""
# The same, after so many lines at once.
LINES = 60_000
LONG = f"awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf \"%099d\\n\", i }}'\n{SLOW}"
# More than an answer has.
DIRECT_BYTES = 4 * 1024**2


class Printer:
    """A command that prints until it is told to stop."""

    def __init__(self, cluster: Cluster, script: str) -> None:
        self._cluster = cluster
        self._node = cluster.swarm.nodes[0]
        self._container = self._node.containers()[0]
        self._execute("rm", "-f", "/tmp/printed", "/tmp/stop")
        job_id = cluster.create(shlex.join(["sh", "-c", script]))
        target = {"ContainerId": self._container, "NodeId": self._node.node_id}
        self.ids = (job_id, cluster.start(job_id, [target]))
        wait_until(lambda: self.printed, 30)

    def _execute(self, *command: str) -> str:
        return docker(self._node.docker_host, "exec", self._container, *command)

    @property
    def printed(self) -> int:
        """The last number so far; 0 if there is none."""
        return int(self._execute("sh", "-c", "cat /tmp/printed || echo 0"))

    def stop(self) -> dict[str, object]:
        """Its result, when it is over."""
        self._execute("touch", "/tmp/stop")
        return self._cluster.end(*self.ids)[0]

    @property
    def stored(self) -> int:
        """How many bytes of the log are stored. To ask this is not a look at the log."""
        pages = self._cluster.client("dynamodb").get_paginator("query")
        ends = [
            int(item["First"]["N"]) + int(item["Size"]["N"])
            for page in pages.paginate(
                TableName="appjobs-dev-segments",
                KeyConditionExpression="#log = :log AND #first >= :zero",
                ExpressionAttributeNames={"#log": "Log", "#first": "First"},
                ExpressionAttributeValues={
                    ":log": {"S": "/".join((*self.ids, self._container))},
                    ":zero": {"N": "0"},
                },
            )
            for item in page["Items"]
        ]
        return max(ends, default=0)

    def read(self) -> bytes:
        """The log as a browser gets it."""
        answer = self._cluster.log(*self.ids, self._container)
        assert answer.status_code == 200, answer.text
        return answer.content

    def is_redirect(self) -> bool:
        """Whether the log is one object in S3."""
        answer = self._cluster.api.log(*self.ids, self._container)
        return bool(answer.status_code == 302)


@pytest.fixture
def printer(cluster: Cluster) -> Iterator[Callable[[str], Printer]]:
    started: list[Printer] = []

    def start(script: str) -> Printer:
        started.append(Printer(cluster, script))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def last(log: bytes) -> int:
    """The last number that was printed."""
    return int(log.split()[-1]) if log else 0


def test_a_log_that_nobody_reads_is_behind_until_somebody_does(
    printer: Callable[[str], Printer],
) -> None:
    slow = printer(SLOW)

    def is_behind() -> bool:
        """Nothing is uploaded while 50 numbers are printed, which takes 10 s."""
        stored, printed = slow.stored, slow.printed
        if not stored:
            return False
        wait_until(lambda: slow.printed >= printed + 50, 60)
        return slow.stored == stored

    wait_until(is_behind, 120)
    printed = slow.printed
    # The first reader waits for the worker; on a busy machine, not long enough.
    wait_until(lambda: last(slow.read()) >= printed, 10)
    # From now on, what is read is a few seconds old at most.
    for _ in range(5):
        printed = slow.printed
        assert last(slow.read()) >= printed - 25
        wait_until(lambda: slow.printed >= printed + 5)  # noqa: B023 - called at once


def long_log(last_number: int) -> bytes:
    """What LONG has printed when it printed this number."""
    numbers = (b"%d\n" % number for number in range(1, last_number + 1))
    return b"".join((*(b"%099d\n" % line for line in range(1, LINES + 1)), *numbers))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_long_running_log_is_downloaded_and_goes_on_growing(
    printer: Callable[[str], Printer],
) -> None:
    long = printer(LONG)
    sizes = []
    for _ in range(2):
        printed = long.printed
        assert long.is_redirect()
        content = long.read()
        assert len(content) > DIRECT_BYTES
        assert sha256(content) == sha256(long_log(10 * printed + 1000)[: len(content)])
        sizes.append(len(content))
        wait_until(lambda: long.printed >= printed + 50, 60)  # noqa: B023 - called at once
    assert sizes[1] > sizes[0]
    result = long.stop()
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0)
    assert "OutputIncomplete" not in result
    content = long.read()
    assert len(content) == result["OutputSize"]
    assert sha256(content) == sha256(long_log(long.printed))
