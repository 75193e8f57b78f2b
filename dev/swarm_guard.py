"""The test swarm's guard: a process that removes the swarm once its harness has ended.

The harness starts it first, in its own session, and keeps the writing end of its standard input.
However the harness ends, by a stop, a crash or SIGKILL, the guard reads the end of its input and
cleans up. There is no other clean-up, and a second Ctrl-C does not interrupt this one. The guard also
cleans up before the swarm starts, in case an earlier guard was killed.
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

READY = "ready"
LOCK_SECONDS = 30.0
CLEAN_UP_SECONDS = 30.0
NETNS_DIR = Path("/run/netns")
SHIM_SOCKETS = "/run/containerd/s/"
ENGINE_PROGRAMS = re.compile(r"dockerd|docker-proxy|containerd(-shim.*)?|runc|nsenter|unshare")
# Marks a directory as a swarm's own, which may be removed as a whole.
MARKER = ".appjobs-test-swarm"


class CleanUpError(Exception):
    """Something of the swarm is left on the machine; the text says what."""


@dataclass(frozen=True)
class Footprint:
    """All that the swarm of one directory has on the machine, named after that directory."""

    directory: Path

    @property
    def _hash(self) -> str:
        return hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()

    @property
    def prefix(self) -> str:
        """Begins every name; also the name of the host's link into the swarm's network."""
        return f"aj{self._hash[:6]}"

    @property
    def run_dir(self) -> Path:
        """For sockets: the path of a unix socket has 107 bytes, too few below some directories."""
        return Path("/run") / self.prefix

    def netns(self, name: str) -> str:
        """Returns the name of the network namespace of a node, or of the hub between them."""
        return f"{self.prefix}-{name}"

    def address(self, number: int) -> str:
        """Returns an address of the swarm's /24, one of the 4096 of 10.208.0.0/12."""
        subnet = int(self._hash[:6], 16) % 4096
        return f"10.{208 + subnet // 256}.{subnet % 256}.{number}"


def clean_up(footprint: Footprint) -> None:
    """Removes the swarm of this footprint, running or not, and nothing else.

    Raises CleanUpError if something cannot be removed.
    """
    _kill_all(footprint)
    _unmount_all(footprint)
    _remove_network(footprint)
    _remove_cgroups(footprint)
    shutil.rmtree(footprint.run_dir, ignore_errors=True)
    _remove_directory(footprint.directory)


def _kill_all(footprint: Footprint) -> None:
    deadline = time.monotonic() + CLEAN_UP_SECONDS
    quiet_rounds = 0
    # An engine starts processes up to its end: only a second empty round shows that none is left.
    while quiet_rounds < 2:
        found = _processes(footprint)
        if time.monotonic() > deadline:
            raise CleanUpError(f"processes do not end: {found}")
        sockets = _shim_sockets(footprint, found)
        _kill(found)
        for path in sockets:
            path.unlink(missing_ok=True)
        quiet_rounds = 0 if found else quiet_rounds + 1
        time.sleep(0.05)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _shim_sockets(footprint: Footprint, pids: set[int]) -> set[Path]:
    """The containers' shims leave their sockets in a directory that all containerds share.

    A network namespace shows the sockets that were opened in it, and no others.
    """
    namespaces = set(_inodes(_netns_files(footprint)))
    sockets: set[str] = set()
    for pid in pids:
        if _network_of(pid) in namespaces:
            with suppress(OSError):
                listing = Path(f"/proc/{pid}/net/unix").read_text()
                sockets.update(re.findall(rf"{SHIM_SOCKETS}\w+", listing))
    return {Path(path) for path in sockets}


def _processes(footprint: Footprint) -> set[int]:
    namespaces = set(_inodes(_netns_files(footprint)))
    ours = {
        pid
        for pid in process_ids() - {os.getpid()}
        if engine_program(pid, footprint.run_dir) or _network_of(pid) in namespaces
    }
    return ours | _contained(footprint)


def process_ids() -> set[int]:
    """Returns the pids of all processes of the machine."""
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def engine_program(pid: int, run_dir: Path) -> str | None:
    """Returns the program's name if this is an engine's process whose arguments name `run_dir`."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    name = Path(arguments[0]).name
    names_us = any(f"{run_dir}/" in argument for argument in arguments)
    return name if names_us and ENGINE_PROGRAMS.fullmatch(name) else None


def _network_of(pid: int) -> int | None:
    return next(_inodes([Path(f"/proc/{pid}/ns/net")]), None)


def _inodes(paths: list[Path]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):
            yield path.stat().st_ino


def _netns_files(footprint: Footprint) -> list[Path]:
    return sorted(NETNS_DIR.glob(footprint.netns("*")))


def _contained(footprint: Footprint) -> set[int]:
    """The containers' processes, which outlive their engine: only their cgroup shows whose they are."""
    pids: set[int] = set()
    for cgroup in _cgroups(footprint):
        # os.walk skips cgroups that vanish while it walks; Path.rglob raises.
        for folder, _, _ in os.walk(cgroup):
            with suppress(OSError):
                processes = (Path(folder) / "cgroup.procs").read_text()
                pids.update(int(pid) for pid in processes.split() if pid != "0")
    return pids


def _cgroups(footprint: Footprint) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    # Version 2 has one hierarchy, version 1 one for each controller.
    candidates = [root / footprint.prefix, *root.glob(f"*/{footprint.prefix}")]
    return [cgroup for cgroup in candidates if cgroup.is_dir()]


def _remove_cgroups(footprint: Footprint) -> None:
    for cgroup in _cgroups(footprint):
        for folder, _, _ in os.walk(cgroup, topdown=False):
            # Busy or gone already: an empty cgroup that is left does no harm.
            with suppress(OSError):
                Path(folder).rmdir()


def _unmount_all(footprint: Footprint) -> None:
    deadline = time.monotonic() + CLEAN_UP_SECONDS
    while mounts := _mounts(footprint):
        if time.monotonic() > deadline:
            raise CleanUpError(f"still mounted: {mounts}")
        subprocess.run(["umount", "--lazy", *reversed(mounts)], capture_output=True)


def _mounts(footprint: Footprint) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [_unescape(line.split()[4]) for line in lines]
    ours = (f"{footprint.run_dir}/", f"{footprint.directory}/")
    return [point for point in points if point.startswith(ours)]


def _unescape(mount_point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount_point)


def _remove_network(footprint: Footprint) -> None:
    # Its other end goes with the hub, but only some time after the hub's name is gone.
    subprocess.run(["ip", "link", "delete", footprint.prefix], capture_output=True)
    for netns in _netns_files(footprint):
        done = subprocess.run(["ip", "netns", "delete", netns.name], capture_output=True, text=True)
        if done.returncode:
            raise CleanUpError(done.stderr.strip())


def _remove_directory(directory: Path) -> None:
    if not (directory / MARKER).exists():
        return
    # The marker goes last: if this is interrupted, the next clean-up still knows the directory.
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(directory)


def _make_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


def _take_lock(footprint: Footprint) -> socket.socket:
    # The name of an abstract socket is a lock that ends with its process and leaves no file.
    lock = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock.bind(f"\0appjobs-test-swarm-{footprint.prefix}")
            return lock
        except OSError:
            if time.monotonic() > deadline:
                raise CleanUpError(f"{footprint.directory} is in use by another swarm") from None
        time.sleep(0.1)


def _refuse_foreign_directory(directory: Path) -> None:
    if not (directory / MARKER).exists() and directory.exists() and any(directory.iterdir()):
        raise CleanUpError(f"{directory} is not empty and no swarm's: it would be removed")


def guard(footprint: Footprint) -> None:
    """Cleans up, says that the swarm may start, waits for the end of the harness, cleans up again."""
    with _take_lock(footprint):
        _refuse_foreign_directory(footprint.directory)
        clean_up(footprint)
        _make_directory(footprint.directory)
        # If the harness has ended, nobody reads this any more.
        with suppress(BrokenPipeError):
            print(READY, flush=True)
        sys.stdin.read()
        clean_up(footprint)


def main() -> int:
    """Guards the swarm of the directory that is the only argument; returns the exit code."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        guard(Footprint(Path(sys.argv[1])))
    except CleanUpError as error:
        sys.exit(f"test swarm: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
