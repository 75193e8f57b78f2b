"""What leads out of a container, whose it is, and which number a user has: as engines have them."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from worker.engine.paths import EnginePaths
from worker.target import rights
from worker.target.rights import Mounted, belongs, find_sources, find_uid, find_ways_out, parse_uid

ENGINE = EnginePaths("/srv/engine/other.sock", "/srv/docker")


def container(
    mounts: list[dict[str, str]] | None = None, networks: tuple[str, ...] = (), **host: Any
) -> dict[str, Any]:
    """What an engine says of a container."""
    return {
        "HostConfig": {"CapAdd": None, "Devices": None, "PidMode": "", "CgroupnsMode": "host"}
        | host,
        "NetworkSettings": {"Networks": {name: {} for name in networks}},
        "Mounts": mounts or [],
    }


def bind(source: str, destination: str = "/x") -> dict[str, str]:
    return {"Type": "bind", "Source": source, "Destination": destination}


@pytest.mark.parametrize(
    ("host", "way"),
    [
        ({"Privileged": True}, "is privileged"),
        ({"CapAdd": ["ALL"]}, "has the capability ALL"),
        ({"CapAdd": ["CAP_SYS_ADMIN"]}, "has the capability SYS_ADMIN"),
        ({"CapAdd": ["sys_ptrace"]}, "has the capability SYS_PTRACE"),
        ({"CapAdd": ["SYS_MODULE"]}, "has the capability SYS_MODULE"),
        ({"CapAdd": ["DAC_READ_SEARCH"]}, "has the capability DAC_READ_SEARCH"),
        ({"CapAdd": ["SYS_RAWIO"]}, "has the capability SYS_RAWIO"),
        ({"PidMode": "host"}, "shares the node's pid namespace"),
        ({"IpcMode": "host"}, "shares the node's ipc namespace"),
        ({"NetworkMode": "host"}, "shares the node's network namespace"),
        ({"UsernsMode": "host"}, "shares the node's user namespace"),
        ({"Devices": [{"PathOnHost": "/dev/sda"}]}, "has the device /dev/sda"),
        ({"DeviceCgroupRules": ["b *:* rwm"]}, "may use devices: b *:* rwm"),
    ],
    ids=str,
)
def test_settings_of_a_container_may_lead_out_of_it(host: dict[str, Any], way: str) -> None:
    assert find_ways_out(container(**host), Mounted(), ENGINE) == [way]


def test_a_task_on_the_nodes_network_is_known_by_its_networks() -> None:
    task = container(networks=("host",), NetworkMode="default")
    assert find_ways_out(task, Mounted(), ENGINE) == ["shares the node's network namespace"]


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"CapAdd": ["NET_ADMIN", "CAP_NET_BIND_SERVICE", "IPC_LOCK"]},
        {"PidMode": "container:abc", "IpcMode": "private", "NetworkMode": "2048_default"},
        {"UTSMode": "host"},
        {"Devices": [{"PathOnHost": "/dev/null"}]},
        {"SecurityOpt": ["seccomp=unconfined"]},
    ],
    ids=str,
)
def test_an_ordinary_container_does_not_lead_out(host: dict[str, Any]) -> None:
    assert find_ways_out(container(networks=("ingress",), **host), Mounted(), ENGINE) == []


# An engine's sockets; folders that hold one, or parts of the system; files in some folders.
LEAD_OUT = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/../run/./docker.sock",
    "/run",
    "/var/run",
    "/var",
    "/",
    "/srv",
    "/srv/engine",
    "/srv/engine/other.sock",
    "/run/containerd",
    "/var/run/containerd/containerd.sock",
    "/etc",
    "/etc/cron.d",
    "/etc/sudoers.d/x",
    "/etc/shadow",
    "/root",
    "/root/.ssh",
    "/home",
    "/usr",
    "/proc",
    "/proc/1",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/dev/sda1",
    "/boot",
    "/srv/docker",
    "/srv/docker/containers",
    "/var/lib/docker/volumes",
]
LEAD_NOWHERE = [
    "/srv/engine/other.socket",
    "/run/docker.sock.d",
    "/run/mysqld",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/passwd",
    "/home/app",
    "/rootfs",
    "/usr/share/zoneinfo",
    "/var/log",
    "/var/lib/postgresql",
    "/dev/log",
    "/dev/null",
    "/srv/app",
    "/data",
]


@pytest.mark.parametrize("source", LEAD_OUT)
def test_some_folders_of_the_node_lead_out(source: str) -> None:
    (way,) = find_ways_out(container([bind(source)]), Mounted(), ENGINE)
    assert re.fullmatch(
        r"mounts (/\S*) of its node at /x(, which gives access to (?!\1$)/\S+)?", way
    )


@pytest.mark.parametrize("source", LEAD_NOWHERE)
def test_other_folders_of_the_node_do_not(source: str) -> None:
    assert find_ways_out(container([bind(source)]), Mounted(), ENGINE) == []


def test_a_volume_is_judged_by_what_it_is_made_of() -> None:
    def of(options: dict[str, str] | None, **volume: str) -> list[str]:
        named = {
            "Type": "volume",
            "Name": "v",
            "Destination": "/x",
            "Source": "/srv/docker/v/_data",
        }
        engines = {"Driver": "local", "Options": options, **volume}
        return find_ways_out(
            container([named | {"Source": volume.get("Source", named["Source"])}]),
            Mounted({"v": engines}),
            ENGINE,
        )

    assert of(None) == of({}) == of({"type": "tmpfs", "device": "tmpfs"}) == []
    assert of({"type": "none", "o": "bind", "device": "/srv/app"}) == []
    assert of({"type": "none", "o": "bind", "device": "/run"})
    assert of({"type": "ext4", "device": "/dev/sdb1"})
    assert of({"type": "overlay", "device": "overlay", "o": "lowerdir=/a:/etc,upperdir=/b"})
    assert of({"type": "nfs", "o": "addr=10.0.0.1,rw", "device": ":/etc"}) == []
    assert of({"type": "nfs4", "o": "addr=10.0.0.1", "device": "/etc"}) == []
    assert of({"type": "cifs", "device": "//server/etc"}) == []
    assert of({"type": "nfs", "o": "rw,bind", "device": "/etc"})
    assert of({"type": "cifs", "o": "rbind", "device": "/etc"})
    for etc in ("//etc", "etc", "../../etc", "/srv/../etc"):
        assert "mounts /etc of" in of({"type": "none", "o": "bind", "device": etc})[0]
    assert of({"type": "cifs", "o": "ro,bind", "device": "//srv/app"}) == []
    for kind, path in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("cgroup2", "/sys"),
    ):
        assert f"mounts {path} of" in of({"type": kind, "device": "any"})[0]
    assert of({"mountpoint": "/etc"}, Driver="plugin")
    assert of({}, Driver="plugin", Source="/root/x")
    assert of({}, Driver="plugin", Source="/mnt/x") == []


def test_a_volume_that_the_engine_does_not_show_is_not_trusted() -> None:
    mount = {"Type": "volume", "Name": "v", "Destination": "/x", "Source": "/srv/docker/v/_data"}
    (way,) = find_ways_out(container([mount]), Mounted({"v": None}), ENGINE)
    assert way == "mounts the volume v, which the engine does not show"


def test_a_socket_is_known_by_what_it_is_and_by_its_name() -> None:
    link = bind("/srv/app/link", "/x.sock")
    assert find_ways_out(container([link]), Mounted(), ENGINE) == []
    way = "mounts a socket of its node at /x.sock"
    assert find_ways_out(container([link]), Mounted(sockets=frozenset({"/x.sock"})), ENGINE) == [
        way
    ]
    assert find_ways_out(container([bind("/srv/link", "/run/docker.sock")]), Mounted(), ENGINE)


def test_only_mounts_that_show_the_node_have_sources() -> None:
    assert find_sources({"Type": "tmpfs", "Destination": "/run", "Source": ""}, {}) == []
    assert find_sources(bind("/srv//app/"), {}) == ["/srv/app"]


def test_the_documentation_names_all_that_leads_out() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/access.md").read_text(encoding="utf-8")
    in_etc = {f"/etc/{name}" for name in re.findall("`([a-z.]+)`", text)}
    named = {*re.findall("`([A-Z_]+|/[a-z0-9/.]+)`", text), *in_etc}
    listed = {*rights._CAPABILITIES, *rights._FOLDERS, *rights._DEEP_FOLDERS}
    assert listed - named == set()


STACK, SERVICE = "com.docker.stack.namespace", "com.docker.swarm.service.name"
PROJECT, PART = "com.docker.compose.project", "com.docker.compose.service"


@pytest.mark.parametrize(
    ("labels", "app", "service", "own"),
    [
        ({STACK: "a", SERVICE: "a_web"}, "a", "", True),
        ({STACK: "a", SERVICE: "a_web"}, "a", "a_web", True),
        ({STACK: "a", SERVICE: "a_web"}, "a", "a_db", False),
        ({STACK: "b", SERVICE: "b_web"}, "a", "", False),
        # A service's name says nothing if there is a stack, and ServiceName never allows more.
        ({STACK: "b", SERVICE: "a"}, "a", "", False),
        ({STACK: "b", SERVICE: "a"}, "a", "a", False),
        ({STACK: "b", SERVICE: "b_web"}, "a", "b_web", False),
        ({STACK: "b", PROJECT: "a"}, "a", "", False),
        ({SERVICE: "a"}, "a", "", True),
        ({SERVICE: "a"}, "a", "a", True),
        ({SERVICE: "a"}, "a", "b", False),
        ({SERVICE: "a_web"}, "a", "", False),
        ({PROJECT: "a", PART: "web"}, "a", "", True),
        ({PROJECT: "a", PART: "web"}, "a", "web", True),
        ({PROJECT: "a", PART: "web"}, "a", "db", False),
        ({PROJECT: "b", PART: "a"}, "a", "", False),
        ({STACK: "", PROJECT: "a"}, "a", "", True),
        ({}, "a", "", False),
        (None, "a", "", False),
        ({STACK: unicodedata.normalize("NFD", "café")}, "café", "", True),
        ({STACK: "A"}, "a", "", False),
    ],
)
def test_a_container_is_its_stacks_or_else_its_services(
    labels: dict[str, str] | None, app: str, service: str, own: bool
) -> None:
    assert belongs({"Config": {"Labels": labels}}, app, service) is own


PASSWD = b"""root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
boss:x:0:0::/:
zeros:x:000:0::/:
hex:x:0x3e8:1::/:
signed:x:-1:1::/:
wrapped:x:4294967296:1::/:
high:x:2147483648:1::/:
spaced:x: 1000:1::/:
short
#comment:x:7:7::/:
  indented:x:1005:1::/:
app:x:0:0:a second one::
lead:x:01007:1::/:
"""


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("app", 1000),
        ("boss", 0),
        ("zeros", 0),
        ("indented", 1005),
        ("lead", 1007),
        # An engine reads these as 0, wraps them to 0, or refuses them.
        ("hex", None),
        ("signed", None),
        ("wrapped", None),
        ("high", None),
        ("spaced", None),
        ("short", None),
        ("1000", None),
        ("nobody", None),
        ("APP", None),
    ],
)
def test_a_name_has_the_number_that_an_engine_finds(user: str, found: int | None) -> None:
    assert find_uid(user, PASSWD) == found


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("1000", 1000),
        ("0001000", 1000),
        ("0", 0),
        ("00", 0),
        ("2147483647", 2147483647),
        ("2147483648", None),
        ("4294967296", None),
        ("99999999999999999999", None),
        ("-1", None),
        ("+1", None),
        ("\u0661", None),
        ("app", None),
    ],
)
def test_a_number_is_itself_as_far_as_an_engine_keeps_it(user: str, expected: int | None) -> None:
    assert parse_uid(user) == expected
