"""The sample application: an image made only of busybox, so that no registry is needed."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from dev.engine import EngineError, docker
from dev.packages import install

IMAGE = "appjobs-sample:1"
STACK = "2048"
SERVICE = "2048_2048"
STACK_LABEL = f"com.docker.stack.namespace={STACK}"
SERVICE_LABEL = f"com.docker.swarm.service.name={SERVICE}"
CONTAINER_PREFIX = f"appjobs-{SERVICE}."
APP_ID = 1000
JOB: dict[str, Any] = {
    "AppName": STACK,
    "ServiceName": SERVICE,
    "Name": "Who is there",
    "Cmd": "sh -c 'hostname; id; date'",
    # The shell takes it as $0 and prints it nowhere.
    "SecretArgs": ["a greeting that nobody sees"],
}

_SETTINGS = (
    'CMD ["sleep","2147483647"]',
    "WORKDIR /",
    "ENV PATH=/bin",
)
_PASSWD = f"root:x:0:0:root:/root:/bin/sh\napp:x:{APP_ID}:{APP_ID}:app:/home/app:/bin/sh\n"
_GROUP = f"root:x:0:\napp:x:{APP_ID}:\n"


def ensure_image(host: str) -> str:
    """Makes the sample image on the engine, unless it has the image.

    Returns the image's name. Raises LocalError, also if there is no static busybox and it cannot be
    installed here.
    """
    if not docker(host, "image", "ls", "--quiet", IMAGE):
        changes = [argument for setting in _SETTINGS for argument in ("--change", setting)]
        docker(host, "import", *changes, "-", IMAGE, input=root_filesystem())
    return IMAGE


def root_filesystem() -> bytes:
    """Returns the image's files as a tar: the same bytes each time, for the same busybox."""
    busybox = _static_busybox()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add_directories(tar)
        _add_file(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in _applets(busybox):
            _add_link(tar, f"bin/{applet}", "busybox")
        # Scripts name /usr/bin/env and the like in their first line.
        _add_link(tar, "usr/bin", "../bin")
        _add_file(tar, "etc/passwd", _PASSWD.encode(), 0o644)
        _add_file(tar, "etc/group", _GROUP.encode(), 0o644)
    return buffer.getvalue()


def ensure_containers(host: str, count: int = 2) -> list[str]:
    """Starts sample containers that stopped and makes missing ones, until `count` run on the engine.

    Returns their long ids. Raises EngineError.
    """
    ensure_image(host)
    existing = _sample_containers(host)
    names = [f"{CONTAINER_PREFIX}{number}" for number in range(1, count + 1)]
    return [_ensure_container(host, name, existing.get(name)) for name in names]


def stop_containers(host: str) -> None:
    """Removes only the containers that `ensure_containers` made. Raises EngineError."""
    ids = list(_sample_containers(host).values())
    if ids:
        docker(host, "rm", "--force", *ids)


def _sample_containers(host: str) -> dict[str, str]:
    # Swarm's own tasks have the same labels, but not the name's prefix.
    listing = docker(
        host,
        *("ps", "--all", "--no-trunc", "--format", "{{.Names}} {{.ID}}"),
        *("--filter", f"label={STACK_LABEL}", "--filter", f"name=^{CONTAINER_PREFIX}"),
    )
    return dict(line.split() for line in listing.splitlines())


def _ensure_container(host: str, name: str, container_id: str | None) -> str:
    if container_id:
        docker(host, "start", container_id)
        return container_id
    labels = ("--label", STACK_LABEL, "--label", SERVICE_LABEL)
    # As PID 1, sleep has no handler for SIGTERM: stopping it would take the engine's 10 seconds.
    return docker(host, "run", "--detach", "--stop-signal=KILL", "--name", name, *labels, IMAGE)


def _static_busybox() -> Path:
    busybox = _find_busybox()
    if busybox is None:
        install(["busybox-static"], Path(".local"))
        busybox = _find_busybox()
    if busybox is None:
        raise EngineError("there is no static busybox, even after installing busybox-static")
    return busybox


def _find_busybox() -> Path | None:
    path = shutil.which("busybox") or "/bin/busybox"
    return Path(path) if Path(path).exists() and _is_static(path) else None


def _is_static(program: str) -> bool:
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True)
    return "=>" not in libraries.stdout


def _applets(busybox: Path) -> list[str]:
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return sorted(set(listing.stdout.split()) - {"busybox"})


def _add_directories(tar: tarfile.TarFile) -> None:
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr"):
        _add(tar, tarfile.DIRTYPE, name, mode=0o755)
    _add(tar, tarfile.DIRTYPE, "tmp", mode=0o1777)
    _add(tar, tarfile.DIRTYPE, "home/app", mode=0o755, owner=APP_ID)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    _add(tar, tarfile.SYMTYPE, name, mode=0o777, target=target)


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    _add(tar, tarfile.REGTYPE, name, mode=mode, content=content)


def _add(
    tar: tarfile.TarFile,
    kind: bytes,
    name: str,
    *,
    mode: int,
    owner: int = 0,
    target: str = "",
    content: bytes = b"",
) -> None:
    entry = tarfile.TarInfo(name)  # its mtime is 0, which keeps the tar's bytes the same
    entry.type, entry.mode, entry.linkname = kind, mode, target
    entry.uid = entry.gid = owner
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
