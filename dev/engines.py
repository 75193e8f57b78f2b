"""Another Docker Engine than the machine's own, for one command and its children.

    python -m dev.engines newest [COMMAND...]
    python -m dev.engines 28 [COMMAND...]

`newest` is the newest engine of Debian's that starts here. A number is a release: Debian must have a
version of it. The engine comes from the mirror that apt is set up with, and apt checks it. It is unpacked
into `.local/engines`, and nothing is installed. It stays there: to fetch it again, remove the folder.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.project import LOCAL, ROOT, locked
from dev.engine import docker
from dev.errors import LocalError
from dev.packages import install_missing
from dev.swarm import PROGRAMS, Swarm

NEWEST = "newest"
DIRECTORY = LOCAL / "engines"
# Newest first. An engine of Debian's next but one release may need a newer C library than is here.
SUITES = ("sid", "trixie")
# The machine's own runc and tini are used with them: newer ones need a newer C library.
PACKAGES = ("docker.io", "docker-cli", "containerd")
KEYRINGS = Path("/usr/share/keyrings")
_COMMAND_SECONDS = 600


@dataclass(frozen=True)
class Release:
    """What one of Debian's suites has."""

    suite: str
    version: str

    def __str__(self) -> str:
        return f"Docker {self.version} (Debian's {self.suite})"

    @property
    def directory(self) -> Path:
        """Where it is unpacked."""
        return DIRECTORY / self.suite / self.version

    @property
    def path(self) -> str:
        """The PATH on which its programs come first."""
        folders = [self.directory / "usr" / "sbin", self.directory / "usr" / "bin"]
        return os.pathsep.join([*map(str, folders), os.environ["PATH"]])

    def is_wanted(self, wanted: str) -> bool:
        """Whether it is of the wanted release."""
        return wanted == NEWEST or self.version.split(".")[0] == wanted


def find(wanted: str) -> Release:
    """The wanted engine, fetched and known to start here. Raises LocalError, which says what there is."""
    failures = []
    # One process at a time fetches; the next one finds what it has fetched.
    with locked(DIRECTORY / "lock"):
        for suite in SUITES:
            try:
                release = _release(suite)
                if release.is_wanted(wanted):
                    _make_ready(release)
                    return release
                failures.append(f"it has {release}")
            except LocalError as error:
                failures.append(f"not from its {suite}: {error}")
                print(f"no engine from Debian's {suite}: {error}", file=sys.stderr, flush=True)
    raise LocalError(f"no Docker {wanted} from Debian: {'; '.join(failures)}")


def _release(suite: str) -> Release:
    """What the suite has, or the newest that was fetched from it before. Raises LocalError."""
    if fetched := [ready.parent.name for ready in (DIRECTORY / suite).glob("*/ready")]:
        return Release(suite, max(fetched, key=_numbers))
    apt = _apt(suite)
    for line in _run("apt-cache", *apt, "show", "--no-all-versions", PACKAGES[0]).splitlines():
        if line.startswith("Version: "):
            return Release(suite, line.removeprefix("Version: ").split("+")[0])
    raise LocalError(f"no package {PACKAGES[0]}")


def _numbers(version: str) -> list[int]:
    """What versions are compared by: as text, 9 would be newer than 28."""
    return [int(number) for number in re.findall(r"\d+", version)]


def _make_ready(release: Release) -> None:
    """Fetches it and tries it, unless that was done before. Raises LocalError."""
    ready = release.directory / "ready"
    if ready.exists():
        return
    print(f"fetching {release}", file=sys.stderr, flush=True)
    shutil.rmtree(release.directory, ignore_errors=True)
    release.directory.mkdir(parents=True)
    packages = DIRECTORY / release.suite / "packages"
    packages.mkdir(exist_ok=True)
    _run("apt-get", *_options(release.suite), "download", *PACKAGES, folder=packages)
    for package in packages.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(release.directory))
    shutil.rmtree(packages)
    _try(release)
    ready.touch()


def _try(release: Release) -> None:
    """Runs a container and an exec with it. Raises LocalError."""
    script = f"from dev import engines; engines.run_something({str(release.directory)!r})"
    _run(sys.executable, "-c", script, folder=ROOT, path=release.path)


def run_something(directory: str) -> None:
    """Forms a swarm with the engine that is first on the PATH, and runs a command in a container."""
    with Swarm(Path(directory) / "trial", nodes=1, tasks=1) as swarm:
        (container,) = swarm.manager.containers()
        docker(swarm.manager.docker_host, "exec", container, "true")


def _apt(suite: str) -> list[str]:
    """Options with which apt knows only this suite, from the first of its own mirrors that has it."""
    options, failure = _options(suite), "apt has no sources"
    (DIRECTORY / suite / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    keyring = next(KEYRINGS.glob("debian-archive-keyring.*"), None)
    if keyring is None:
        raise LocalError(f"Debian's keys are not in {KEYRINGS}")
    mirrors = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages")
    for mirror in dict.fromkeys(mirrors.split()):
        _sources(suite).write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n")
        try:
            _run("apt-get", *options, "--error-on=any", "update")
        except LocalError as error:
            failure = str(error)
        else:
            return options
    raise LocalError(failure)


def _options(suite: str) -> list[str]:
    settings = {
        "Dir::Etc::sourcelist": _sources(suite),
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": DIRECTORY / suite / "lists",
        "Dir::Cache": DIRECTORY / suite,
        "Acquire::Languages": "none",
        # apt's own user may not write here.
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _sources(suite: str) -> Path:
    return DIRECTORY / suite / "sources.list"


def _run(*command: str, folder: Path | None = None, path: str | None = None) -> str:
    """What the command printed. Raises LocalError with the end of what it printed."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"{command[0]} did not end within {_COMMAND_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise LocalError(f"{command[0]}: {' '.join(said)}")
    return done.stdout


def main() -> None:
    """Finds the engine, says which it is, and becomes the command."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {__doc__}")
    wanted, *command = sys.argv[1:]
    try:
        install_missing(PROGRAMS, DIRECTORY.parent)
        release = find(wanted)
    except LocalError as error:
        sys.exit(f"error: {error}")
    print(f"the engine: {release}", flush=True)
    if command:
        os.execvpe(command[0], command, {**os.environ, "PATH": release.path})


if __name__ == "__main__":
    main()
