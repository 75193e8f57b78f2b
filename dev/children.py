"""Processes that we start, which end when we do."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.project import ROOT
from dev.errors import LocalError
from dev.waiting import tail

_STOP_SECONDS = 30.0


@dataclass
class Child:
    """A process that we started, in a session of its own: a Ctrl-C in the terminal does not reach it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def logs(self) -> list[Path]:
        return [self.log]

    def check(self) -> None:
        """Raises LocalError with the end of its log if the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise LocalError(f"{self.name} ended with code {code}, {tail(self.log)}")

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ends the process: SIGTERM first, then SIGKILL if it still runs after `seconds`."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_child(
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    orphan_signal: str = "KILL",
) -> Child:
    """Starts a process that appends to `log`. It gets `orphan_signal` if we are killed.

    Its environment is ours without what is about AWS, plus `environment`.
    """
    # Unlike a preexec function, setpriv is safe when other threads run. Only Linux has it.
    guard = ["setpriv", "--pdeathsig", orphan_signal, "--"] if shutil.which("setpriv") else []
    process = start_detached(
        [*guard, *command], log, cwd=ROOT, env={**without_aws(os.environ), **environment}
    )
    return Child(name, process, log)


def start_detached(
    command: list[str],
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that a Ctrl-C in the terminal does not reach it.

    Its output is appended to `log`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def without_aws(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what says which AWS to use, and as whom."""
    return {key: value for key, value in environment.items() if not key.startswith("AWS_")}
