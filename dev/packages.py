"""Debian packages of the programs that are missing here."""

import os
import shutil
import subprocess
from pathlib import Path

from dev.errors import LocalError
from dev.waiting import tail


def install_missing(programs: dict[str, str], log_dir: Path) -> None:
    """Installs the Debian packages of those programs (program: package) that are not on the PATH.

    Raises LocalError if that needs another user or another system, or if apt fails.
    """
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    if missing:
        install(sorted(missing), log_dir)


def install(packages: list[str], log_dir: Path) -> None:
    """Installs Debian packages. Raises what `install_missing` does."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        raise LocalError(f"missing here: {names}. Install it, or run as root on Debian or Ubuntu.")
    log = log_dir / "apt.log"
    print(f"installing {names} with apt-get (log: {log})", flush=True)
    _apt_get(log, "update")
    _apt_get(log, "install", "-y", "--no-install-recommends", *packages)


def _apt_get(log: Path, *args: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("ab") as output:
        command = ["apt-get", *args]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    if done.returncode:
        raise LocalError(f"{' '.join(command)} failed, {tail(log)}")
