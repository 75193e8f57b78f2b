"""Python environments for the tools whose packages do not get along with ours."""

import subprocess
import sys
from pathlib import Path

from deploy.project import LOCAL, ROOT, locked
from dev.errors import LocalError


def python_of(name: str, title: str, base: str = sys.executable) -> Path:
    """The interpreter of the environment that has the packages of dev/<name>.txt.

    It is made with the interpreter `base` if it is missing or out of date. Raises LocalError.
    """
    folder = LOCAL / (name if base == sys.executable else f"{name}-{Path(base).name}")
    stamp = folder / "made-of"
    requirements = ROOT / "dev" / f"{name}.txt"
    wanted = f"{base}\n{requirements.read_text(encoding='utf-8')}"
    with locked(LOCAL / f"{name}.lock"):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            _install(folder, requirements, title, base)
            stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path, title: str, base: str) -> None:
    print(f"installing {title}", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
    for command in ([base, "-m", "venv", "--clear", str(folder)], [*pip, "-r", str(requirements)]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LocalError(f"installing {title} failed: {done.stdout}{done.stderr}".strip())
