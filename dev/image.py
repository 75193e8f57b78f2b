"""The worker's image if no registry is within reach: its base is made of Debian's packages.

    python -m dev.image appjobs-worker:1

`worker/Dockerfile` makes it, on the engine of `DOCKER_HOST` (default: this machine's). Debian's packages
come from the mirrors that apt is set up with, Python's from the index that pip is set up with, both into
`.local/image`. They stay there: to fetch them again, remove the folder.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.utils import parse_wheel_filename

from deploy.project import LOCAL, ROOT, locked
from dev.engine import docker, ensure_engine
from dev.engines import KEYRINGS
from dev.errors import LocalError
from dev.packages import install_missing

DIRECTORY = LOCAL / "image"
BASE = "appjobs-base:1"
PROGRAMS = {"mmdebstrap": "mmdebstrap"}
# The Dockerfile calls useradd, which is in passwd.
PACKAGES = "python3-venv,passwd"
# Nobody reads these in a container.
LEFT_OUT = ("man", "doc", "locale")
# Without it, a package comes along that moves folders into /usr, and with it all of Perl.
MERGED_HOOKS = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
# pip installs into /usr/local, as in Python's own images. Debian's own Python would refuse to.
MAKE_ENVIRONMENT = 'chroot "$1" python3 -m venv /usr/local'
REQUIREMENTS = ROOT / "worker" / "requirements.txt"
SECONDS = 600
RunCommand = Callable[[list[str]], list[str]]


def build(host: str, image: str, run_command: RunCommand = list) -> None:
    """Builds the image on the engine at `host`. Raises LocalError.

    `run_command` makes a command one that runs in the engine's network.
    """
    ensure_base(host)
    with serving(index(_python(host)), run_command) as url:
        docker(
            host,
            *("build", "--file", str(ROOT / "worker" / "Dockerfile"), "--tag", image),
            *("--build-arg", f"BASE={BASE}", "--build-arg", f"PIP_INDEX_URL={url}"),
            *("--network", "host", str(ROOT)),
            timeout=SECONDS,
        )


def ensure_base(host: str) -> None:
    """Makes the base on the engine, unless it has it. Raises LocalError."""
    if not docker(host, "image", "ls", "--quiet", BASE):
        docker(host, "import", str(_root_filesystem()), BASE, timeout=SECONDS)


def _root_filesystem() -> Path:
    """The base's files as a tar: Debian's release that this machine has, and its Python."""
    archive = DIRECTORY / "base.tar"
    with locked(LOCAL / "image.lock"):
        if not archive.exists():
            install_missing(PROGRAMS, LOCAL)
            DIRECTORY.mkdir(parents=True, exist_ok=True)
            unfinished = archive.with_suffix(".unfinished.tar")
            left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
            options = ["--variant=essential", f"--include={PACKAGES}", *left_out]
            hooks = [f"--hook-dir={MERGED_HOOKS}", f"--customize-hook={MAKE_ENVIRONMENT}"]
            # The release has no name here: the sources say which it is.
            _run("mmdebstrap", *options, *hooks, "", str(unfinished), *_sources())
            unfinished.rename(archive)
    return archive


def _sources() -> list[str]:
    """Debian's own among the sources that apt is set up with, as lines of sources.list."""
    keyring = next(KEYRINGS.glob("debian-archive-keyring.*"), None)
    wanted = ("Identifier: Packages", "Origin: Debian", "Component: main")
    found = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", *wanted)
    if keyring is None or not found:
        raise LocalError(
            "apt has no source of Debian here; the image's base is made from its packages"
        )
    return [f"deb [signed-by={keyring}] {line} main" for line in found.splitlines()]


def _python(host: str) -> str:
    """The base's Python, such as 3.11."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    return docker(host, "run", "--rm", "--network", "none", BASE, "python", "-c", script)


def index(python: str) -> Path:
    """A folder with what is pinned for the worker, laid out as an index for pip. Raises LocalError."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = DIRECTORY / f"index-{python}-{pins}"
    with locked(LOCAL / "image.lock"):
        if not folder.exists():
            DIRECTORY.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=DIRECTORY) as temporary:
                unfinished = Path(temporary, "index")
                _download(python, unfinished)
                # It is there as a whole or not at all.
                unfinished.rename(folder)
    return folder


def _download(python: str, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    wheels = ["--only-binary", ":all:", "--python-version", python]
    _run(*pip, *wheels, "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS))
    for wheel in list(folder.iterdir()):
        name, *_ = parse_wheel_filename(wheel.name)
        (folder / name).mkdir(exist_ok=True)
        wheel.rename(folder / name / wheel.name)


@contextmanager
def serving(folder: Path, run_command: RunCommand) -> Iterator[str]:
    """Serves the folder on the loopback interface, from which pip takes packages without TLS; its URL."""
    server = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        run_command([*server, "--directory", str(folder)]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        # "Serving HTTP on 127.0.0.1 port 41213 (http://127.0.0.1:41213/) ..."
        _, _, rest = process.stdout.readline().partition("(")
        yield rest.partition(")")[0]
    finally:
        process.kill()
        process.communicate()


def _run(*command: str) -> str:
    """What the command printed. Raises LocalError with the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-5:]
        raise LocalError(f"{command[0]}: {' '.join(said)}")
    return done.stdout


def main() -> None:
    """Builds the image; its name is the only argument."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {__doc__}")
    engine = None
    try:
        host, engine = ensure_engine(LOCAL)
        build(host, sys.argv[1])
    except LocalError as error:
        sys.exit(f"error: {error}")
    finally:
        if engine:
            engine.stop()
    print(f"built {sys.argv[1]}")


if __name__ == "__main__":
    main()
