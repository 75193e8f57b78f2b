"""Which containers a command may run in, and as which user. Pure: judges what the engine answered."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from chalicelib.domain.labels import normalize
from worker.engine.paths import EnginePaths

# What the engine says of a container, or of a volume.
Inspect = dict[str, Any]

# Capabilities that reach past the container: the kernel, other processes, the node's files and clock.
_CAPABILITIES = frozenset(
    {
        "ALL",
        "AUDIT_CONTROL",
        "BPF",
        "CHECKPOINT_RESTORE",
        "DAC_READ_SEARCH",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "PERFMON",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_MODULE",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_TIME",
    }
)
# The node's namespaces, by the field that asks for them. Two are left out: `CgroupnsMode` is the node's
# on every engine with cgroup version 1, and `UTSMode` shows only the node's name.
_NAMESPACES = {"PidMode": "pid", "IpcMode": "ipc", "NetworkMode": "network", "UsernsMode": "user"}
# A process that may speak to one of these is root on the node.
_SOCKETS = (
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket",
    "/run/podman/podman.sock",
    "/run/systemd/private",
)
# A mount of one of these, or of a folder above it, gives access to the node.
_FOLDERS = ("/bin", "/etc", "/home", "/lib", "/lib64", "/run", "/sbin", "/usr", "/var/run")
# So does a mount of one of these, or of anything below it.
_DEEP_FOLDERS = (
    "/boot",
    "/dev",
    "/etc/cron.d",
    "/etc/docker",
    "/etc/ld.so.preload",
    "/etc/pam.d",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/systemd",
    "/lib/modules",
    "/proc",
    "/root",
    "/sys",
    "/usr/lib/systemd",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/spool/cron",
)
# Devices that every container has, or that any program on the node may write to.
_HARMLESS = frozenset(
    f"/dev/{name}" for name in ("log", "null", "random", "shm", "urandom", "zero")
)
# The file systems of remote volumes: their `device` is a path on another machine.
_REMOTE = re.compile(r"(nfs|cifs|smb|ceph|gluster)", re.IGNORECASE)
# The file systems that show the node's kernel, and where the node has them. Their `device` is any word.
_KERNEL = {
    "proc": "/proc",
    "devpts": "/dev",
    "devtmpfs": "/dev",
    **dict.fromkeys(("bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs"), "/sys"),
    **dict.fromkeys(("pstore", "securityfs", "sysfs", "tracefs"), "/sys"),
}

# A user's number. In passwd, an engine reads anything else as 0. After 32 bits it begins again at 0.
_UID = re.compile(rb"[0-9]{1,10}")
_MAX_UID = 2**31 - 1


@dataclass(frozen=True)
class Mounted:
    """What a container's inspect does not say of its mounts."""

    # The engine's inspect of each volume, by name; None if the engine has no such volume.
    volumes: Mapping[str, Inspect | None] = field(default_factory=dict)
    # The places in the container where a mount is a socket of the node, or has one in it.
    sockets: frozenset[str] = frozenset()


def find_ways_out(container: Inspect, mounted: Mounted, engine: EnginePaths) -> list[str]:
    """What gives access to the container's node. Each text completes "the container ..."."""
    return [
        *_ways_of_configuration(container["HostConfig"]),
        *_ways_of_namespaces(container),
        *_ways_of_mounts(container, mounted, engine),
    ]


def _ways_of_configuration(host: Inspect) -> Iterator[str]:
    if host.get("Privileged"):
        yield "is privileged"
    for capability in host.get("CapAdd") or []:
        name = str(capability).upper().removeprefix("CAP_")
        if name in _CAPABILITIES:
            yield f"has the capability {name}"
    for device in host.get("Devices") or []:
        if device["PathOnHost"] not in _HARMLESS:
            yield f"has the device {device['PathOnHost']}"
    if host.get("DeviceCgroupRules"):
        yield f"may use devices: {', '.join(host['DeviceCgroupRules'])}"


def _ways_of_namespaces(container: Inspect) -> Iterator[str]:
    host = container["HostConfig"]
    networks = container.get("NetworkSettings", {}).get("Networks") or {}
    for key, name in _NAMESPACES.items():
        # A task of a Swarm service has the node's network only in its list of networks.
        if host.get(key) == "host" or (key == "NetworkMode" and "host" in networks):
            yield f"shares the node's {name} namespace"


def _ways_of_mounts(container: Inspect, mounted: Mounted, engine: EnginePaths) -> Iterator[str]:
    for mount in container["Mounts"]:
        destination = str(mount["Destination"])
        for path in find_sources(mount, mounted.volumes):
            if found := _find_guarded(path, engine):
                access = "" if found == path else f", which gives access to {found}"
                yield f"mounts {path} of its node at {destination}{access}"
        if mount["Type"] == "volume" and mounted.volumes.get(mount["Name"], {}) is None:
            yield f"mounts the volume {mount['Name']}, which the engine does not show"
        if destination in mounted.sockets or _is_docker_socket(destination):
            yield f"mounts a socket of its node at {destination}"


def _is_docker_socket(path: str) -> bool:
    return PurePosixPath(path).name == "docker.sock"


def find_sources(mount: Inspect, volumes: Mapping[str, Inspect | None]) -> list[str]:
    """The paths of the node that the mount shows; none for a volume that is a folder of the engine."""
    if mount["Type"] == "bind":
        return [_plain(mount["Source"])]
    if mount["Type"] != "volume":
        return []
    volume = volumes.get(mount["Name"]) or {}
    own = [] if volume.get("Driver", "local") == "local" else [str(mount.get("Source") or "")]
    paths = [*own, *_paths_of(volume.get("Options") or {})]
    return list(dict.fromkeys(_plain(path) for path in paths if path))


def _paths_of(options: Mapping[str, str]) -> Iterator[str]:
    """The paths of the node in a volume's options: `device`, a driver's own, and those within `o`."""
    kind = options.get("type", "")
    if {"bind", "rbind"}.intersection(options.get("o", "").split(",")):
        # The kernel does not look at the type then. A relative path begins in the engine's working
        # directory, which is most often `/`.
        yield f"/{options.get('device', '')}"
    elif kind in _KERNEL:
        yield _KERNEL[kind]
    elif _REMOTE.match(kind):
        return
    for name, value in options.items():
        texts = re.split(r"[,:=]", value) if name == "o" else [value]
        # `//server/share` is on another machine.
        yield from (text for text in texts if text.startswith("/") and not text.startswith("//"))


def _plain(path: str) -> str:
    """The path without `..` and the like, and with `/run` for `/var/run`, which leads there."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts[1:]:
        parts = parts[:-1] if part == ".." else [*parts, part]
    if parts[:2] == ["var", "run"]:
        parts = parts[1:]
    return "/" + "/".join(parts) if path else ""


def _find_guarded(path: str, engine: EnginePaths) -> str | None:
    """The first thing of the node that nobody should reach, but this path does; None if there is none."""
    if path in _HARMLESS:
        return None
    mounted = PurePosixPath(path)
    sockets = [*_SOCKETS, *filter(None, [_plain(engine.socket)])]
    deep_folders = [*_DEEP_FOLDERS, *filter(None, [_plain(engine.data_root)])]
    for guarded in (*sockets, *_FOLDERS, *deep_folders):
        if PurePosixPath(guarded).is_relative_to(mounted):
            return guarded
    return next((deep for deep in deep_folders if mounted.is_relative_to(deep)), None)


# --- applications -------------------------------------------------------------------------------


def belongs(container: Inspect, app_name: str, service_name: str) -> bool:
    """Whether the container is one of the application's, and of its service if one is named.

    It is if its stack has the application's name. If it has no stack, its service or its Compose project
    must have that name.
    """
    labels: Mapping[str, str] = container["Config"].get("Labels") or {}
    stack = labels.get("com.docker.stack.namespace")
    service = labels.get("com.docker.swarm.service.name")
    owners = [stack] if stack else [service, labels.get("com.docker.compose.project")]
    services = [service, labels.get("com.docker.compose.service")]
    return _is_among(app_name, owners) and (not service_name or _is_among(service_name, services))


def _is_among(name: str, names: Iterable[str | None]) -> bool:
    return normalize(name) in [normalize(other) for other in names if other]


# --- users --------------------------------------------------------------------------------------


def parse_uid(user: str) -> int | None:
    """The user's number, if it is written as one; None for a name, or for a number that is too large."""
    return _parse_uid(user.encode())


def find_uid(name: str, passwd: bytes) -> int | None:
    """The number of the first user with this name in passwd, as an engine finds it; None if uncertain."""
    for line in passwd.split(b"\n"):
        first, _, uid = [*line.strip().split(b":"), b"", b""][:3]
        if first == name.encode():
            return _parse_uid(uid)
    return None


def _parse_uid(text: bytes) -> int | None:
    return int(text) if _UID.fullmatch(text) and int(text) <= _MAX_UID else None
