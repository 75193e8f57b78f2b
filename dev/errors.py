"""What goes wrong on this machine."""


class LocalError(Exception):
    """Something on this machine cannot be started or used; the text says why, and what to do."""
