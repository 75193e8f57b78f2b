"""What may run as whom in which container, on real engines: root, applications, messages, spellings."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dev import sample
from dev.engine import docker
from dev.swarm_node import Node
from dev.tokens import make_token
from tests.support.waiting import wait_until
from tests.swarm.conftest import Cluster, emptied
from worker.engine.client import Engine

pytestmark = pytest.mark.timeout(300)

Target = dict[str, str]
Result = dict[str, Any]
# As whom the job runs: by the container's own user, by a name, by a number.
USERS = ("", "app", "1000")
PEOPLE = "root:x:0:0::/:\napp:x:{}:1000::/:\nboss:x:0:0::/:\n"
FORBIDDEN = "forbidden"


@dataclass(frozen=True)
class Kind:
    """A kind of container, and what becomes of a job there without the right to root, as each of USERS.

    That is the number that the command runs as, or what the refusal says.
    """

    name: str
    expected: tuple[str, str, str]
    options: tuple[str, ...] = ()
    # What the container's /etc/passwd is: a text, or a link to that path; as it is in the image if None.
    passwd: str | Path | None = None
    starts: bool = True

    def __str__(self) -> str:
        return self.name


def leads_out(name: str, way: str, *options: str, starts: bool = True) -> Kind:
    """A container that nobody may enter without the right, whoever the user is."""
    return Kind(name, (way, way, way), options, starts=starts)


def of_user(user: str) -> tuple[str, str]:
    return ("--user", user)


NO_USER = "the job has no User, and the container's own is root"
UNCERTAIN = "app, may be root"
# Folders of the node that the tests make: {}; the engine's socket, and its folder.
KINDS = [
    Kind("plain", (NO_USER, "1000", "1000")),
    Kind("a user of the image", ("1000", "1000", "1000"), of_user("app")),
    Kind("a group of the image", ("1000", "1000", "1000"), of_user("app:root")),
    Kind(
        "root by another name",
        ("boss, is root", "1000", "1000"),
        of_user("boss"),
        PEOPLE.format(1000),
    ),
    Kind("app is root", (NO_USER, "app, is root", "1000"), passwd=PEOPLE.format(0)),
    Kind("no number", (NO_USER, UNCERTAIN, "1000"), passwd=PEOPLE.format("0x3e8")),
    Kind("2^32", (NO_USER, UNCERTAIN, "1000"), passwd=PEOPLE.format(2**32)),
    Kind("nobody of that name", (NO_USER, UNCERTAIN, "1000"), passwd="root:x:0:0::/:\n"),
    Kind("a link within", (NO_USER, "1000", "1000"), passwd=Path("../../../../home/people")),
    Kind("a link outward", (NO_USER, UNCERTAIN, "1000"), passwd=Path("../../../{}/people")),
    Kind(
        "a huge passwd",
        (NO_USER, UNCERTAIN, "1000"),
        passwd="x:x:7:7::/:\n" * 2**17 + PEOPLE.format(1000),
    ),
    Kind("no passwd", (NO_USER, UNCERTAIN, "1000"), passwd=Path("/nowhere")),
    Kind("a volume", (NO_USER, "1000", "1000"), ("-v", "appjobs-test-plain:/data")),
    Kind("a folder of its own", (NO_USER, "1000", "1000"), ("-v", "{folder}:/data")),
    Kind("a file of the system", (NO_USER, "1000", "1000"), ("-v", "/etc/hostname:/etc/theirs:ro")),
    leads_out("the socket", "mounts {socket}", "-v", "{socket}:/x"),
    leads_out("the socket's folder", "mounts {run}", "-v", "{run}:/x:ro"),
    leads_out(
        "a link to the socket", "mounts a socket of its node at /x", "-v", "{folder}/socket:/x"
    ),
    leads_out("a link to the folder", "mounts a socket of its node at /x", "-v", "{folder}/run:/x"),
    leads_out("a volume of the folder", "mounts {run}", "-v", "appjobs-test-bound:/x"),
    leads_out("a volume by a link", "mounts a socket of its node", "-v", "appjobs-test-link:/x"),
    leads_out("/etc", "mounts /etc", "-v", "/etc:/hostetc"),
    leads_out("the engine's data", "mounts {data}", "-v", "{data}:/x"),
    leads_out("SYS_ADMIN", "has the capability SYS_ADMIN", "--cap-add", "SYS_ADMIN"),
    leads_out("the pids", "shares the node's pid namespace", "--pid", "host"),
    leads_out("the network", "shares the node's network namespace", "--network", "host"),
    # Some machines cannot start such a container; it is judged before that.
    leads_out("privileged", "is privileged", "--privileged", starts=False),
]


@dataclass(frozen=True)
class Place:
    """Where the containers are made."""

    node: Node
    folder: Path

    @property
    def socket(self) -> Path:
        return Path(self.node.docker_host.removeprefix("unix://"))

    @property
    def data(self) -> str:
        return docker(self.node.docker_host, "info", "--format", "{{.DockerRootDir}}")

    def fill(self, text: str) -> str:
        """A text of a kind, with this place's folders in it."""
        return text.format(
            str(self.folder),
            folder=self.folder,
            socket=self.socket,
            run=self.socket.parent,
            data=self.data,
        )

    def docker(self, *arguments: str) -> str:
        return docker(self.node.docker_host, *arguments)

    def prepare(self) -> None:
        """Links and files that containers mount, and volumes made of folders of the node."""
        (self.folder / "socket").symlink_to(self.socket)
        (self.folder / "run").symlink_to(self.socket.parent)
        (self.folder / "people").write_text(PEOPLE.format(1000))
        self.docker("volume", "create", "appjobs-test-plain")
        for name, device in (("bound", self.socket.parent), ("link", self.folder / "run")):
            options = ("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={device}")
            self.docker("volume", "create", *options, f"appjobs-test-{name}")

    def make(self, kind: Kind) -> str:
        """A container of that kind; its id."""
        options = [self.fill(option) for option in kind.options]
        id = self.docker("create", "--stop-signal", "KILL", *options, sample.IMAGE)
        if isinstance(kind.passwd, str):
            self._write(kind.passwd, f"{id}:/etc/passwd")
        if kind.starts:
            self.docker("start", id)
        if isinstance(kind.passwd, Path):
            self._write(PEOPLE.format(1000), f"{id}:/home/people")
            self.docker("exec", id, "ln", "-sf", self.fill(str(kind.passwd)), "/etc/passwd")
        return id

    def _write(self, text: str, to: str) -> None:
        file = self.folder / uuid4().hex
        file.write_text(text)
        self.docker("cp", str(file), to)


@pytest.fixture(scope="module")
def place(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(cluster.swarm.nodes[1], tmp_path_factory.mktemp("rights"))
    place.prepare()
    return place


@pytest.fixture(scope="module")
def containers(place: Place) -> Iterator[dict[Kind, Target]]:
    """A container of each kind."""
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(place.make, KINDS))
    yield {
        kind: {"ContainerId": id, "NodeId": place.node.node_id}
        for kind, id in zip(KINDS, ids, strict=True)
    }
    place.docker("rm", "--force", *ids)


def token(cluster: Cluster, *options: str) -> str:
    return make_token(cluster.aws.environment, f"a token {uuid4()}", *options)


@pytest.fixture(scope="module")
def outcomes(
    cluster: Cluster, containers: dict[Kind, Target]
) -> dict[tuple[bool, str], dict[Kind, Result]]:
    """What became of a job in each kind of container, with and without the right to root, per user."""
    mortal = replace(cluster, token=token(cluster, "--role", "operator"))
    starts = {}
    for user in USERS:
        job_id = cluster.create("id", User=user)
        for who, has_right in ((mortal, False), (cluster, True)):
            starts[has_right, user] = (job_id, who.start(job_id, list(containers.values())))
    return {
        key: dict(zip(containers, cluster.end(*start), strict=True))
        for key, start in starts.items()
    }


@pytest.mark.engine
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_the_right_nobody_is_root_or_leaves_the_container(
    kind: Kind, outcomes: dict[tuple[bool, str], dict[Kind, Result]], place: Place
) -> None:
    for user, expected in zip(USERS, kind.expected, strict=True):
        result = outcomes[False, user][kind]
        if expected.isdecimal():
            assert (result["Status"], result["ExitCode"]) == ("FINISHED", 0), result
            assert result["Output"].startswith(f"uid={expected}")
            assert result["ProcessConfig"]["user"].partition(":")[0] == expected
        else:
            assert (result["Status"], result.get("Reason")) == ("CREATE_FAILED", FORBIDDEN), result
            assert place.fill(expected) in result["E"]


@pytest.mark.engine
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_with_the_right_all_is_as_the_engine_has_it(
    kind: Kind, outcomes: dict[tuple[bool, str], dict[Kind, Result]]
) -> None:
    for user in USERS:
        result = outcomes[True, user][kind]
        assert result.get("Reason") in (
            {None, "engine_error"} if kind.starts else {"container_not_running"}
        )
    own = outcomes[True, ""][kind]
    if kind.starts and kind.options[:1] != ("--user",):
        assert own["Output"].startswith("uid=0")


@pytest.mark.engine
def test_only_small_files_within_the_container_are_read(place: Place) -> None:
    id = place.make(Kind("", ("", "", ""), ("-v", f"{place.folder}:/shown")))
    script = (
        "cd /tmp; echo here > file; ln -s file link; ln -s link links; ln -s /nowhere broken;"
        "ln -s loop loop;"
        f"ln -s ../../../..{place.folder}/people outward; ln -s /shown/people shown; mkfifo fifo;"
        "head -c 1048576 /dev/zero > large; head -c 1048577 /dev/zero > larger; : > empty"
    )
    engine = Engine(place.node.docker_host, pool=2)
    engine.connect()
    try:
        place.docker("exec", id, "sh", "-c", script)
        for name in ("file", "link", "links"):
            assert engine.read_file(id, f"/tmp/{name}") == b"here\n"
        for name in ("broken", "outward", "empty", "no-such-file"):
            assert engine.read_file(id, f"/tmp/{name}") == b""
        for name in ("loop", "fifo", "larger", "."):
            assert engine.read_file(id, f"/tmp/{name}") is None
        assert engine.read_file(id, "/tmp/shown") == PEOPLE.format(1000).encode()
        assert engine.read_file(id, "/tmp/large") == bytes(2**20)
    finally:
        place.docker("rm", "--force", id)


@pytest.mark.engine
def test_the_number_has_the_groups_of_its_name(cluster: Cluster, place: Place) -> None:
    target = {"ContainerId": place.make(Kind("", ("", "", ""))), "NodeId": place.node.node_id}
    try:
        place.docker("exec", target["ContainerId"], "sh", "-c", "echo staff:x:77:app >> /etc/group")
        mortal = replace(cluster, token=token(cluster, "--role", "operator"))
        for user in ("app", "app:root", "app:staff"):
            job_id = cluster.create("id", User=user)
            by_number, by_name = (
                cluster.end(job_id, who.start(job_id, [target]))[0] for who in (mortal, cluster)
            )
            assert by_number["Output"] == by_name["Output"]
            assert by_number["ProcessConfig"]["user"] == user.replace("app", "1000")
    finally:
        place.docker("rm", "--force", target["ContainerId"])


# --- applications -------------------------------------------------------------------------------

STACK, SERVICE = "com.docker.stack.namespace", "com.docker.swarm.service.name"
PROJECT, PART = "com.docker.compose.project", "com.docker.compose.service"
LABELS = {
    "a task of ours": {STACK: "ours", SERVICE: "ours_web"},
    "another task of ours": {STACK: "ours", SERVICE: "ours_db"},
    "a task of theirs": {STACK: "theirs", SERVICE: "ours"},
    "a service without a stack": {SERVICE: "ours"},
    "a compose container of ours": {PROJECT: "ours", PART: "web"},
    "a compose container of theirs": {PROJECT: "theirs", PART: "ours"},
    "no labels": {},
}
OURS = {
    "a task of ours",
    "another task of ours",
    "a service without a stack",
    "a compose container of ours",
}


@pytest.fixture(scope="module")
def labelled(place: Place) -> Iterator[dict[str, Target]]:
    """Containers with labels as Swarm and Compose set them."""

    def make(labels: dict[str, str]) -> str:
        options = [f"--label={name}={value}" for name, value in labels.items()]
        return place.docker("run", "--detach", "--stop-signal", "KILL", *options, sample.IMAGE)

    ids = [make(labels) for labels in LABELS.values()]
    yield {
        name: {"ContainerId": id, "NodeId": place.node.node_id}
        for name, id in zip(LABELS, ids, strict=True)
    }
    place.docker("rm", "--force", *ids)


@pytest.mark.parametrize(
    ("service", "own"),
    [
        ("", OURS),
        ("ours_web", {"a task of ours"}),
        ("ours", {"a service without a stack"}),
        ("web", {"a compose container of ours"}),
        ("theirs", set()),
    ],
)
def test_a_bound_token_runs_only_in_its_applications_containers(
    cluster: Cluster, labelled: dict[str, Target], service: str, own: set[str]
) -> None:
    bound = replace(cluster, token=token(cluster, "--role", "operator", "--root", "--app", "ours"))
    job_id = cluster.create("echo here", AppName="ours", ServiceName=service)
    results = cluster.end(job_id, bound.start(job_id, list(labelled.values())))
    ran = {
        name
        for name, result in zip(labelled, results, strict=True)
        if result["Status"] == "FINISHED"
    }
    assert ran == own
    for result in results:
        assert result["Status"] == "FINISHED" or result["Reason"] == FORBIDDEN
    free = cluster.end(job_id, cluster.start(job_id, list(labelled.values())))
    assert {result["Output"] for result in free} == {"here\n"}


# --- messages -----------------------------------------------------------------------------------


def test_a_forged_message_runs_nothing_and_leaves_no_trace(cluster: Cluster, place: Place) -> None:
    node, other = place.node, cluster.swarm.nodes[0]
    target, bystander = cluster.targets(node)[0], cluster.targets(other)[0]
    mark = f"/tmp/{uuid4().hex}"
    job_id = cluster.create(f"sh -c 'echo ran >> {mark}'")
    executor_id = cluster.start(job_id, [target])
    before = cluster.end(job_id, executor_id)
    forged = [
        # A container that is not a target; a target under its short id; a node that is not the target's.
        (other, bystander["ContainerId"]),
        (node, target["ContainerId"][:12]),
        (other, target["ContainerId"]),
    ]
    for to, container in forged:
        send(cluster, to, {"JobId": job_id, "ExecutorId": executor_id, "ContainerId": container})
    wait_until(lambda: emptied(cluster), 60, lambda: "the messages stay")
    assert cluster.inspect(job_id, executor_id) == before
    items = cluster.client("dynamodb").query(
        TableName="appjobs-dev-results",
        KeyConditionExpression="Execution = :key",
        ExpressionAttributeValues={":key": {"S": f"{job_id}/{executor_id}/0"}},
    )
    assert [item["ContainerId"]["S"] for item in items["Items"]] == [target["ContainerId"]]
    ran = cluster.run(f"cat {mark}", [target])
    assert ran[0]["Output"] == "ran\n"
    assert cluster.run(f"cat {mark}", [bystander])[0]["ExitCode"] != 0


def send(cluster: Cluster, node: Node, message: dict[str, str]) -> None:
    """Puts a message on the node's queue, past the API."""
    sqs = cluster.client("sqs")
    url = sqs.get_queue_url(QueueName=f"appjobs-dev-node-{node.node_id}")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(message))


# --- spellings ----------------------------------------------------------------------------------


def test_32_spellings_of_one_container_run_once(cluster: Cluster, place: Place) -> None:
    name = f"appjobs-test-{uuid4().hex}"
    id = place.make(Kind("", ("", "", ""), ("--name", name)))
    try:
        spellings = [name, id, *(id[:length] for length in range(12, 42))]
        targets = [{"ContainerId": each, "NodeId": place.node.node_id} for each in spellings]
        job_id = cluster.create("sh -c 'echo ran >> /tmp/spelled; echo out'")
        executor_id = cluster.start(job_id, targets)
        results = cluster.end(job_id, executor_id)
        assert Counter(result.get("Reason") for result in results) == {
            None: 1,
            "container_repeated": 31,
        }
        (ran,) = [result for result in results if "Reason" not in result]
        assert [result["ContainerId"] for result in results] == spellings
        assert ran["ContainerID"] == id
        first = ran["ContainerId"]
        for result in results:
            if result is not ran:
                assert f"already the target {first}" in result["E"]
                text = cluster.log(job_id, executor_id, result["ContainerId"]).text
                assert text == result["E"]
        assert cluster.log(job_id, executor_id, first).text == "out\n"
        assert place.docker("exec", id, "cat", "/tmp/spelled") == "ran"
    finally:
        place.docker("rm", "--force", id)
