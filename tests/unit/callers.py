"""Who calls the services in these tests."""

from typing import Any

from msgspec.structs import replace

from chalicelib.domain.access import Caller, Role

ADMIN = Caller(name="admin", token_id="0123456789ab", role=Role.ADMIN, may_run_as_root=True)


def caller(**changes: Any) -> Caller:
    """One who may do everything but what `changes` take away."""
    return replace(ADMIN, **changes)
