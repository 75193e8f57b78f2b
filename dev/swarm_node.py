"""One node of the test swarm: its engine, and the faults that tests cause in it."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dev import sample
from dev.children import Child, start_detached
from dev.engine import docker, wait_until_up
from dev.errors import LocalError
from dev.swarm_guard import NETNS_DIR, Footprint, engine_program, process_ids
from dev.waiting import wait_for

HUB = "hub"
END_SECONDS = 30.0


class SwarmError(LocalError):
    """The swarm could not be started, used or removed; the text says why."""


@dataclass
class Node:
    """One node of the swarm: an engine, and the network namespace it lives in."""

    name: str
    netns: str
    address: str
    docker_host: str
    footprint: Footprint = field(repr=False)
    node_id: str = ""
    _engine: Child | None = field(default=None, repr=False)

    @property
    def run_dir(self) -> Path:
        """Where the engine's sockets and its configuration are."""
        return self.footprint.run_dir / self.name

    @property
    def log(self) -> Path:
        """The engine's log."""
        return self.footprint.directory / self.name / "dockerd.log"

    def containers(self) -> list[str]:
        """Returns the long ids of the sample service's running tasks here; raises LocalError."""
        wanted = ("--filter", f"label={sample.SERVICE_LABEL}")
        return docker(self.docker_host, "ps", "--quiet", "--no-trunc", *wanted).split()

    def run_command(self, argv: list[str]) -> list[str]:
        """Returns the command that runs `argv` on this node: with its network and its hostname."""
        # `ip netns exec` would hide the cgroups from an engine, because it mounts /sys again.
        namespaces = [f"--net={NETNS_DIR / self.netns}", f"--uts={self.run_dir / 'uts'}"]
        return ["nsenter", *namespaces, *argv]

    def start_engine(self) -> None:
        """Starts the engine and waits until it answers. Raises LocalError with the end of its log.

        After a kill, Swarm places no tasks here again until the service is changed or forced:
        `docker service update --force`.
        """
        self.launch_engine()
        self.wait_for_engine()

    def launch_engine(self) -> None:
        """Starts the engine's process, and does not wait for it."""
        # The pids in a killed engine's files may be those of other processes by now.
        for pid_file in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.run_dir / pid_file).unlink(missing_ok=True)
        config = self.run_dir / "daemon.json"
        config.write_text(json.dumps(self._engine_config(), indent=2))
        command = self.run_command(["dockerd", "--config-file", str(config)])
        process = start_detached(command, self.log)
        self._engine = Child(f"the engine of {self.name}", process, self.log)

    def wait_for_engine(self) -> None:
        """Waits until the engine answers. Raises LocalError with the end of its log."""
        wait_until_up(self._running_engine(), self.docker_host)

    def kill_engine(self) -> None:
        """Kills the engine and its containerd as a crash would; the containers' processes go on.

        The engine ends them when it starts again.
        """
        engine = self._running_engine().process
        engine.kill()
        engine.wait()
        for pid in self._containerd_pids():
            # Usually the kernel was quicker: an engine asks it that its containerd dies too.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self._containerd_pids(), END_SECONDS, "containerd's end")
        self._engine = None

    def pause_engine(self) -> None:
        """Freezes the engine: it accepts connections and never answers."""
        self._running_engine().process.send_signal(signal.SIGSTOP)

    def resume_engine(self) -> None:
        """Lets a paused engine go on."""
        self._running_engine().process.send_signal(signal.SIGCONT)

    def disconnect(self) -> None:
        """Pulls the node's network cable. Its engine still answers the host on its unix socket."""
        self._set_link("down")

    def reconnect(self) -> None:
        """Plugs the node's network cable in again."""
        self._set_link("up")

    def reap_engine(self) -> None:
        """Collects the engine's process once the guard has killed it."""
        if self._engine:
            self._engine.process.wait()
            self._engine = None

    def _set_link(self, state: str) -> None:
        ip("-n", self.footprint.netns(HUB), "link", "set", self.name, state)

    def _running_engine(self) -> Child:
        if self._engine is None:
            raise SwarmError(f"the engine of {self.name} is not running")
        return self._engine

    def _containerd_pids(self) -> list[int]:
        return [pid for pid in process_ids() if engine_program(pid, self.run_dir) == "containerd"]

    def _engine_config(self) -> dict[str, object]:
        # Its own file also keeps the host's /etc/docker/daemon.json out of it.
        return {
            "data-root": str(self.footprint.directory / self.name / "data"),
            "exec-root": str(self.run_dir / "exec"),
            "pidfile": str(self.run_dir / "docker.pid"),
            "hosts": [self.docker_host],
            # One cgroup for all containers, by which the guard finds their processes.
            "cgroup-parent": f"/{self.footprint.prefix}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        }


def ip(*args: str) -> None:
    """Runs `ip`. Raises SwarmError with its error output."""
    run("ip", *args)


def run(*command: str) -> None:
    """Runs a command. Raises SwarmError with its error output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SwarmError(f"{' '.join(command)}: {done.stderr.strip()}")
