"""Jobs on a real swarm, end to end: HTTP, DynamoDB, SQS, the workers, real engines, S3."""

import hashlib
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dev.engine import docker
from dev.swarm_node import Node
from tests.conftest import ENGINE_KEYS, TOLD
from tests.support.waiting import wait_until
from tests.swarm.conftest import SERVING, Cluster, upkeep
from worker.engine.client import Engine
from worker.engine.errors import AlreadyStarted

# awk prints numbered lines fast: 300 MB in some seconds.
NUMBERED = """awk 'BEGIN { for (i = 0; i < %d; i++) printf "%%099d\\n", i }'"""


def the(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The only result."""
    (result,) = results
    return result


def one(cluster: Cluster) -> list[dict[str, str]]:
    """One target."""
    return cluster.targets()[:1]


def until_running(cluster: Cluster, job_id: str, executor_id: str) -> None:
    """Returns once the only target runs."""

    def running() -> bool:
        return bool(the(cluster.inspect(job_id, executor_id))["Status"] == "RUNNING")

    wait_until(running, 20, lambda: str(cluster.inspect(job_id, executor_id)))


@pytest.mark.parametrize("commands", [("true", "exit 3"), ("sleep 2",)])
def test_an_execution_is_closed_soon_after_its_last_end(
    cluster: Cluster, commands: tuple[str, ...], record_property: Callable[[str, Any], None]
) -> None:
    """By what the workers report: upkeep has no second turn, and in its first one nothing is due."""
    upkeep = cluster.start_upkeep(UPKEEP_SECONDS="3600")
    try:
        jobs = [cluster.create(f"sh -c '{command}'") for command in commands]
        started = [(job_id, cluster.start(job_id, cluster.targets())) for job_id in jobs]
        for execution in started:
            wait_until(
                lambda execution=execution: cluster.is_closed(*execution),
                60,
                lambda execution=execution: str(cluster.inspect(*execution)),
            )
        ends = [result["EndTime"] for one in started for result in cluster.inspect(*one)]
        record_property(TOLD, f"closed {time.time() - max(ends):.1f} s after the last end")
    finally:
        upkeep.stop()
    codes = [0 if command != "exit 3" else 5 for command in commands]
    assert [cluster.counters(*one)["Failed"] for one in started] == codes
    assert [cluster.counters(*one)["Total"] for one in started] == [5] * len(started)


Throwaway = tuple[str, str, dict[str, str]]


@pytest.fixture
def throwaway(cluster: Cluster) -> Iterator[Callable[..., Throwaway]]:
    """Makes containers of the test's own on one node: (docker host, id, target) of each."""
    node = cluster.swarm.nodes[1]
    made: list[str] = []

    def make(*options: str) -> Throwaway:
        command = ("run", "-d", *options, "appjobs-sample:1", "sleep", "600")
        made.append(docker(node.docker_host, *command))
        return node.docker_host, made[-1], {"ContainerId": made[-1], "NodeId": node.node_id}

    yield make
    docker(node.docker_host, "rm", "-f", *made)


def test_a_job_runs_in_every_container_of_every_node(cluster: Cluster) -> None:
    targets = cluster.targets()
    assert len(targets) == 5
    assert len({target["NodeId"] for target in targets}) == 3
    job_id = cluster.create("hostname")
    executor_id = cluster.start(job_id, targets)
    results = cluster.end(job_id, executor_id)
    for target, result in zip(targets, results, strict=True):
        assert result["ContainerId"] == target["ContainerId"]
        assert result["NodeId"] == target["NodeId"]
        assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0)
        assert result.keys() >= ENGINE_KEYS
        assert result["ContainerID"] == target["ContainerId"]
        assert result["Output"].strip() == target["ContainerId"][:12]
        assert result["StartTime"] <= result["EndTime"]
        log = cluster.log(job_id, executor_id, target["ContainerId"])
        assert log.text == result["Output"]
        assert log.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert (
            f'filename="job-container-{target["ContainerId"]}-'
            in log.headers["Content-Disposition"]
        )


def test_an_execution_of_several_parts_runs_each_container_once(
    cluster: Cluster, throwaway: Callable[..., Throwaway]
) -> None:
    """A node's targets fill three parts; two spellings of one container are in the outer ones."""
    _, long_id, target = throwaway("--name", "spelled-twice")
    missing = [{**target, "ContainerId": f"{number:064x}"} for number in range(80)]
    name, short = ({**target, "ContainerId": id} for id in ("spelled-twice", long_id[:12]))
    served = cluster.targets()
    targets = [name, *missing[:40], *served, *missing[40:], short]
    job_id = cluster.create("sh -c 'echo ran >> /tmp/parts; printf %600s\\\\n out'")
    executor_id = cluster.start(job_id, targets)
    with upkeep(cluster):
        wait_until(lambda: cluster.is_closed(job_id, executor_id), 60, lambda: "it stays open")
    results = cluster.inspect(job_id, executor_id)
    assert [result["ContainerId"] for result in results] == [one["ContainerId"] for one in targets]
    reasons = Counter(result.get("Reason", result["Status"]) for result in results)
    assert reasons == {"container_not_found": 80, "FINISHED": 6, "container_repeated": 1}
    assert {results[0]["Status"], results[-1]["Status"]} == {"FINISHED", "CREATE_FAILED"}
    ran = [result for result in results if result["Status"] == "FINISHED"]
    assert {result["Output"].strip() for result in ran} == {"out"}
    assert all(result.keys() >= ENGINE_KEYS for result in ran)
    for result in ran:
        log = cluster.log(job_id, executor_id, result["ContainerId"])
        assert log.text == result["Output"]
    counts = {"Total": len(targets), "Succeeded": 6, "Failed": 81}
    assert cluster.counters(job_id, executor_id) == counts
    looked = cluster.run("cat /tmp/parts", [*served, target])
    assert [result["Output"] for result in looked] == ["ran\n"] * 6


def test_output_and_state_can_be_watched_while_the_command_runs(cluster: Cluster) -> None:
    target = one(cluster)
    container = target[0]["ContainerId"]
    job_id = cluster.create(
        "sh -c 'echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; rm /tmp/go; echo done'"
    )
    executor_id = cluster.start(job_id, target)
    wait_until(
        lambda: cluster.log(job_id, executor_id, container).text == "begun\n", 20, lambda: "no log"
    )
    result = the(cluster.inspect(job_id, executor_id))
    assert result["Status"] == "RUNNING"
    assert result["ID"]
    assert the(cluster.run("touch /tmp/go", target))["ExitCode"] == 0
    assert the(cluster.end(job_id, executor_id))["Output"] == "begun\ndone\n"
    assert cluster.log(job_id, executor_id, container).text == "begun\ndone\n"


@pytest.mark.engine
def test_secrets_arrive_as_one_argument_each_and_stay_masked(cluster: Cluster) -> None:
    secrets = ["two words", "quote ' and \" and $HOME \\", "", "密码 *"]
    job = cluster.create(
        "sh -c 'for a; do printf %s \"$a\" | sha256sum; done' sh", SecretArgs=secrets
    )
    result = the(cluster.end(job, cluster.start(job, one(cluster))))
    sums = [line.split()[0] for line in result["Output"].splitlines()]
    assert sums == [hashlib.sha256(secret.encode()).hexdigest() for secret in secrets]
    masks = ["*" * len(secret) for secret in secrets]
    assert result["ProcessConfig"]["arguments"][-4:] == masks
    assert result["ProcessConfig"]["entrypoint"] == "sh"


@pytest.mark.engine
def test_user_and_environment_reach_the_command(cluster: Cluster) -> None:
    result = the(
        cluster.run("sh -c 'id -u; id -g; echo $A'", one(cluster), User="1000:1000", Env=["A=b c"])
    )
    assert result["Output"] == "1000\n1000\nb c\n"
    assert result["ProcessConfig"]["user"] == "1000:1000"


@pytest.mark.engine
def test_privileged_reaches_the_engine(cluster: Cluster) -> None:
    result = the(cluster.run("true", one(cluster), Privileged=True))
    assert result["ProcessConfig"]["privileged"] is True
    # A machine may lack capabilities that a privileged exec must be given.
    assert result["ExitCode"] == 0 or "caps" in result["Output"]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("cmd", "code", "output"),
    [
        ("sh -c 'echo out; echo err >&2; exit 3'", 3, None),
        ("sh -c 'kill -9 $$'", 137, ""),
        ("true", 0, ""),
        ("/etc/passwd", 126, None),
        ("sh -c 'exit 127'", 127, ""),
        ("printf 'a\\377b\\000c'", 0, "a\ufffdb\0c"),
    ],
)
def test_exit_codes_and_output_are_what_the_engine_says(
    cluster: Cluster, cmd: str, code: int, output: str | None
) -> None:
    result = the(cluster.run(cmd, one(cluster)))
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", code), result
    if output is not None:
        assert result["Output"] == output


@pytest.mark.engine
def test_a_command_that_is_not_found_ends_as_the_engine_says(cluster: Cluster) -> None:
    result = the(cluster.run("no-such-command", one(cluster)))
    assert (result["Status"], result.get("OutputIncomplete")) == ("FINISHED", None)
    # Docker 20.10 to 26.1 say the one, 28.5 says the other.
    assert result["ExitCode"] in (126, 127)
    assert "no-such-command" in result["Output"]


@pytest.mark.engine
def test_an_unknown_user_is_a_truthful_failure(cluster: Cluster) -> None:
    result = the(cluster.run("true", one(cluster), User="nobody-here"))
    assert result.get("ExitCode") != 0
    assert "nobody-here" in result.get("E", "") + result.get("Output", "")


@pytest.mark.engine
def test_containers_that_cannot_run_it_fail_with_a_reason_others_run_it(
    cluster: Cluster, throwaway: Callable[[], Throwaway]
) -> None:
    host, stopped, stopped_target = throwaway()
    _, paused, paused_target = throwaway()
    docker(host, "kill", stopped)
    docker(host, "pause", paused)
    gone = {"ContainerId": "f" * 64, "NodeId": cluster.swarm.nodes[0].node_id}
    nowhere = {"ContainerId": "e" * 64, "NodeId": "nobody-announced-this"}
    targets = [*one(cluster), stopped_target, paused_target, gone, nowhere]
    job_id = cluster.create("echo fine")
    executor_id = cluster.start(job_id, targets)
    first, *failed = cluster.end(job_id, executor_id)
    assert first["Output"] == "fine\n"
    assert [(result["Status"], result["Reason"]) for result in failed] == [
        ("CREATE_FAILED", "container_not_running"),
        ("CREATE_FAILED", "container_paused"),
        ("CREATE_FAILED", "container_not_found"),
        ("CREATE_FAILED", "node_unknown"),
    ]
    for result in failed:
        assert cluster.log(job_id, executor_id, result["ContainerId"]).text == result["E"]


@pytest.mark.engine
@pytest.mark.parametrize("blow", [["kill"], ["rm", "-f"]])
def test_a_container_that_ends_in_the_middle_ends_its_target(
    cluster: Cluster, throwaway: Callable[[], Throwaway], blow: list[str]
) -> None:
    host, container, target = throwaway()
    job_id = cluster.create("sh -c 'echo begun; sleep 300'")
    executor_id = cluster.start(job_id, [target])
    until_running(cluster, job_id, executor_id)
    docker(host, *blow, container)
    result = the(cluster.end(job_id, executor_id))
    killed = result["Status"] == "FINISHED" and result["ExitCode"] == 137
    gone = result["Status"] == "RUNNING_FAILED" and result["Reason"] in (
        "container_gone",
        "lost",
    )
    assert killed or gone, result
    assert result["Output"] == "begun\n"


@pytest.mark.engine
def test_a_paused_command_goes_on_when_its_container_does(
    cluster: Cluster, throwaway: Callable[[], Throwaway]
) -> None:
    host, container, target = throwaway()
    job_id = cluster.create("sh -c 'sleep 5; echo done'")
    executor_id = cluster.start(job_id, [target])
    until_running(cluster, job_id, executor_id)
    docker(host, "pause", container)
    assert the(cluster.inspect(job_id, executor_id))["Status"] == "RUNNING"
    docker(host, "unpause", container)
    assert the(cluster.end(job_id, executor_id))["Output"] == "done\n"


def peak_memory(pid: int) -> int:
    """The most memory that a process ever used, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def test_a_300_mb_log_is_complete_to_the_byte(cluster: Cluster) -> None:
    lines = 3_000_000
    target = one(cluster)
    job_id = cluster.create(NUMBERED % lines)
    executor_id = cluster.start(job_id, target)
    result = the(cluster.end(job_id, executor_id, 110))
    assert result["OutputSize"] == 100 * lines
    assert "OutputIncomplete" not in result
    assert result["OutputTruncated"] is True
    assert result["Output"].endswith(f"{lines - 1:099d}\n")
    assert len(result["Output"]) == 8000
    expected = hashlib.sha256()
    for index in range(lines):
        expected.update(b"%099d\n" % index)
    log = cluster.log(job_id, executor_id, target[0]["ContainerId"])
    assert hashlib.sha256(log.content).hexdigest() == expected.hexdigest()
    worker = cluster.workers["node1"].process.pid
    assert peak_memory(worker) < 400


def test_a_log_that_is_too_long_has_both_ends_and_says_what_is_missing(
    cluster: Cluster,
) -> None:
    lines, limit, end = 500_000, 1_234_567, 1024**2
    target = one(cluster)
    job_id = cluster.create(NUMBERED % lines, LogBytes=limit)
    executor_id = cluster.start(job_id, target)
    result = the(cluster.end(job_id, executor_id, 120))
    output = b"".join(b"%099d\n" % number for number in range(lines))
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0)
    assert result["OutputIncomplete"] is True
    assert result["OutputDropped"] == {"Bytes": len(output) - limit - end, "After": limit}
    assert result["OutputSize"] == limit + end
    assert output.decode().endswith(result["Output"])
    log = cluster.log(job_id, executor_id, target[0]["ContainerId"]).content
    assert log == output[:limit] + output[-end:]


def test_200_mb_full_of_secrets_are_redacted_and_no_other_byte_changes(
    cluster: Cluster,
) -> None:
    secret, lines = "pässword of the day", 2_000_000
    script = f'BEGIN {{ for (i = 0; i < {lines}; i++) printf "%s%099d\\n", i % 500 ? "" : s, i }}'
    target = one(cluster)
    # The shell takes the awk script as $0 and the secret as $1.
    command = shlex.join(["sh", "-c", 'awk -v s="$1" "$0"', script])
    job_id = cluster.create(command, SecretArgs=[secret])
    executor_id = cluster.start(job_id, target)
    result = the(cluster.end(job_id, executor_id, 110))
    assert (result["ExitCode"], result.get("OutputIncomplete")) == (0, None)
    expected = hashlib.sha256()
    for index in range(lines):
        expected.update(b"" if index % 500 else b"***")
        expected.update(b"%099d\n" % index)
    log = cluster.log(job_id, executor_id, target[0]["ContainerId"])
    assert len(log.content) == result["OutputSize"]
    assert hashlib.sha256(log.content).hexdigest() == expected.hexdigest()


@pytest.mark.engine
def test_short_outputs_are_never_lost_under_load(cluster: Cluster) -> None:
    """The first bytes may come in one packet with the header of the engine's answer."""
    job_id = cluster.create("echo hello")
    targets = cluster.targets()
    with ThreadPoolExecutor(8) as pool:
        executions = list(pool.map(lambda _: cluster.start(job_id, targets), range(40)))
    for executor_id in executions:
        for result in cluster.end(job_id, executor_id):
            assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0), result
            assert result["Output"] == "hello\n"


def test_a_first_sigterm_drains(cluster: Cluster) -> None:
    node = cluster.swarm.nodes[2]
    target = cluster.targets(node)[:1]
    job_id = cluster.create("sh -c 'sleep 3; echo done'")
    executor_id = cluster.start(job_id, target)
    until_running(cluster, job_id, executor_id)
    old = cluster.workers[node.name]
    old.process.send_signal(signal.SIGTERM)
    # As in a rolling update: the next worker runs while the old one drains.
    cluster.start_worker(node)
    meanwhile = the(cluster.run("echo meanwhile", target))
    assert meanwhile["Output"] == "meanwhile\n"
    assert the(cluster.end(job_id, executor_id))["Output"] == "done\n"
    assert old.process.wait(20) == 0


def update(cluster: Cluster, node: Node) -> None:
    """Starts a new worker on the node, and drains the old one once the new one serves."""
    old = cluster.workers[node.name]
    before = old.log.read_text().count(SERVING)
    cluster.start_worker(node)
    wait_until(lambda: old.log.read_text().count(SERVING) > before, 30, old.log.read_text)
    old.process.terminate()
    assert old.process.wait(30) == 0


def test_a_rolling_update_under_load_loses_nothing(cluster: Cluster) -> None:
    job_id = cluster.create("sh -c 'echo ran >> /tmp/update; sleep 2; echo done'")
    targets = cluster.targets()
    updated = threading.Event()

    def start_until_updated() -> list[str]:
        executions = []
        while not updated.wait(0.5):
            executions.append(cluster.start(job_id, targets))
        return executions

    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_until_updated)
        try:
            for node in cluster.swarm.nodes:
                update(cluster, node)
        finally:
            updated.set()
        executions = starting.result()
    for executor_id in executions:
        for result in cluster.end(job_id, executor_id):
            assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0), result
            assert (result["Output"], "OutputIncomplete" in result) == ("done\n", False)
    for result in cluster.run("cat /tmp/update"):
        assert result["Output"] == "ran\n" * len(executions)


@pytest.mark.engine
def test_a_killed_workers_target_is_adopted_and_runs_once(cluster: Cluster) -> None:
    node = cluster.swarm.nodes[2]
    target = cluster.targets(node)[:1]
    # What it prints after the kill finds no reader: the engine then reports 126 in place of its 7.
    job_id = cluster.create("sh -c 'echo ran >> /tmp/adopted; echo a; sleep 5; echo b; exit 7'")
    executor_id = cluster.start(job_id, target)
    until_running(cluster, job_id, executor_id)
    cluster.workers[node.name].process.kill()
    cluster.workers[node.name].process.wait()
    cluster.start_worker(node)
    # The dead worker's message is invisible for up to a minute.
    result = the(cluster.end(job_id, executor_id, 90))
    assert (result["Status"], result["ExitCode"]) == ("FINISHED", 7)
    assert result["OutputIncomplete"] is True
    assert the(cluster.run("cat /tmp/adopted", target))["Output"] == "ran\n"


def test_one_worker_serves_several_engines(cluster: Cluster) -> None:
    nodes = cluster.swarm.nodes
    for node in nodes:
        cluster.workers[node.name].process.terminate()
    for node in nodes:
        cluster.workers[node.name].process.wait(20)
    hosts = ",".join(node.docker_host for node in nodes)
    single = cluster.start_worker(nodes[0], DOCKER_HOSTS=hosts, WORKER_ID="the only one")
    try:
        results = cluster.run("hostname")
        assert {result["Status"] for result in results} == {"FINISHED"}
        assert {result["NodeId"] for result in results} == {node.node_id for node in nodes}
        answer = cluster.client("dynamodb").scan(TableName="appjobs-dev-nodes")
        assert {item["Worker"]["S"] for item in answer["Items"]} == {"the only one"}
    finally:
        single.process.terminate()
        single.process.wait(20)
        for node in nodes:
            cluster.start_worker(node)


@pytest.mark.engine
@pytest.mark.parametrize(
    "command", [["echo", "once"], ["sleep", "5"], ["no-such-command"]], ids=str
)
def test_an_exec_is_started_once_and_the_second_start_says_so(
    cluster: Cluster, command: list[str]
) -> None:
    """What adoption rests on; the engine answers in the stream of the output itself."""
    node = cluster.swarm.nodes[0]
    engine = Engine(node.docker_host, pool=2)
    assert engine.connect()[0] == node.node_id
    exec_id = engine.create(node.containers()[0], command, [], "", False)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: list(engine.start(exec_id)))
        wait_until(lambda: not never_started(engine, exec_id), 10, lambda: "it does not start")
        with pytest.raises(AlreadyStarted):
            list(engine.start(exec_id))
    if command[0] == "echo":
        assert first.result() == [(1, b"once\n")]
    with pytest.raises(AlreadyStarted):
        list(engine.start(exec_id))


def never_started(engine: Engine, exec_id: str) -> bool:
    """Whether nobody has started the exec yet."""
    inspect = engine.inspect(exec_id)
    return not inspect["Running"] and inspect["ExitCode"] is None


@pytest.mark.engine
def test_of_two_that_start_an_exec_at_once_one_is_refused(cluster: Cluster) -> None:
    node = cluster.swarm.nodes[0]
    engine = Engine(node.docker_host, pool=4)
    engine.connect()
    for _ in range(20):
        exec_id = engine.create(node.containers()[0], ["echo", "once"], [], "", False)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _, id=exec_id: output_of(engine, id), range(2)))
        assert sorted(both) == [b"once\n", b"refused"]


def output_of(engine: Engine, exec_id: str) -> bytes:
    """What the start brought."""
    try:
        return b"".join(chunk for _, chunk in engine.start(exec_id))
    except AlreadyStarted:
        return b"refused"


@pytest.mark.engine
def test_a_silent_command_is_waited_for_longer_than_any_call(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.client._TIMEOUT_SECONDS", 1)
    node = cluster.swarm.nodes[0]
    engine = Engine(node.docker_host, pool=2)
    engine.connect()
    command = ["sh", "-c", "echo a; sleep 3; echo b"]
    exec_id = engine.create(node.containers()[0], command, [], "", False)
    assert list(engine.start(exec_id)) == [(1, b"a\n"), (1, b"b\n")]
