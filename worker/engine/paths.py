"""Where an engine's own files lie on its node."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EnginePaths:
    """What leads to root on the node, apart from what does so on every node."""

    # Where the engine listens; empty if that is no path.
    socket: str = ""
    # Where it keeps its data.
    data_root: str = ""
