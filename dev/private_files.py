"""Files that nobody else on this machine may read."""

from pathlib import Path

from deploy.project import LOCAL


def close_local() -> None:
    """Keeps other users of the machine out of `.local`: it holds keys, tokens, logs and output."""
    LOCAL.mkdir(exist_ok=True)
    LOCAL.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Writes a file that nobody else may read, and of which nobody reads only a half."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.rename(path)
