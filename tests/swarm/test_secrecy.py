"""A secret argument is only in the process that it is for, whatever happens to that process."""

import base64
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.waiting import wait_until
from tests.swarm.conftest import Cluster, serve, system_on, upkeep, worker_answer

HEALTH_PORT = 9465


def forms(marker: str) -> list[bytes]:
    """The marker, and the forms that hide it only at first sight."""
    plain = marker.encode()
    shifted = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, plain[::-1], plain.hex().encode(), *shifted]


def chunks(path: Path) -> Iterator[bytes]:
    """The file in pieces that overlap by more than a form has bytes."""
    size, overlap = 1024**2, 1024
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(size):
            yield before + chunk
            before = chunk[-overlap:]


def everything_said(system: Cluster, jobs: list[tuple[str, str]]) -> list[bytes]:
    """All answers about those executions, the audit, the API's description, the metrics."""
    paths = ["/jobs", "/audit", "/openapi.json"]
    for job_id, executor_id in jobs:
        paths += [f"/jobs/{job_id}", f"/jobs/{job_id}/inspect/{executor_id}"]
    said = [system.api.send("GET", path).content for path in paths]
    for job_id, executor_id in jobs:
        for target in system.targets():
            said.append(system.log(job_id, executor_id, target["ContainerId"]).content)
    said += [
        worker_answer(node, "/metrics", HEALTH_PORT)[1].encode() for node in system.swarm.nodes
    ]
    return said


def adopted(system: Cluster, marker: str) -> tuple[str, str]:
    """An execution whose first worker dies in the middle."""
    job_id = system.create("sh -c 'echo $0; sleep 3; echo $0'", SecretArgs=[marker])
    targets = system.targets(system.swarm.nodes[2])
    executor_id = system.start(job_id, targets)

    def all_run() -> bool:
        results = system.inspect(job_id, executor_id)
        return all(result["Status"] == "RUNNING" for result in results)

    wait_until(all_run, 60, lambda: str(system.inspect(job_id, executor_id)))
    worker = system.workers["node3"].process
    worker.kill()
    worker.wait()
    system.start_worker(system.swarm.nodes[2], HEALTH_PORT=str(HEALTH_PORT))
    return job_id, executor_id


@pytest.mark.timeout(400)
def test_a_secret_is_nowhere_to_be_found(cluster: Cluster, tmp_path: Path) -> None:
    """Every answer, metric, log line, object, message and file of the emulator's state is searched."""
    marker = f"m4rk3r-{uuid4().hex}"
    with system_on(
        cluster.swarm, tmp_path, LOG_LEVEL="debug", HEALTH_PORT=str(HEALTH_PORT)
    ) as system:
        serve(system)
        commands = [
            "sh -c 'echo $0; echo $0 >&2; printf %s $0' ",
            "no-such-command",
            "sh -c true",
        ]
        job_ids = [system.create(cmd, SecretArgs=[marker, f"2 {marker}"]) for cmd in commands]
        jobs = [(job_id, system.start(job_id, system.targets())) for job_id in job_ids]
        jobs.append(adopted(system, marker))
        with upkeep(system):
            for execution in jobs:
                system.end(*execution, 120)
            wait_until(lambda: system.open() == 0, 60, lambda: "not closed")
        said = everything_said(system, jobs)
        # Nobody takes these up any more: their messages are on the queues.
        system.workers["node1"].process.kill()
        system.start(job_ids[0], system.targets(system.swarm.nodes[0]))
    printed = system.directory / "said"
    printed.write_bytes(b"\n".join(said))
    # The emulator has written all that it knows to the disk by now.
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"said", "api.log", "aws.log", "worker-node3.log"}
    searched = [(path, chunk) for path in files for chunk in chunks(path)]
    assert any(b"***" in chunk for path, chunk in searched if path == printed)
    assert any(job_ids[0].encode() in chunk for path, chunk in searched if path != printed)
    for path, chunk in searched:
        for form in forms(marker):
            assert form not in chunk, f"a secret is in {path.relative_to(tmp_path)}"
