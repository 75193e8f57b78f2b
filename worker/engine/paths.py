"""Where an engine's own files are on its node."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EnginePaths:
    """Paths that lead to root on this node. Others, which are the same on every node, are not here."""

    # Where the engine listens; empty if it does not listen at a path.
    socket: str = ""
    # Where the engine keeps its data.
    data_root: str = ""
