"""The history of a job: its executions, without their results."""

from typing import Annotated

from msgspec import Meta, Struct

from chalicelib.domain.errors import require
from chalicelib.domain.ids import is_executor_id
from chalicelib.schemas.pages import WRONG_NEXT, PageSize
from chalicelib.schemas.values import ExecutorId, Time


class HistoryRequest(Struct, kw_only=True):
    """Which part of a job's history is asked for."""

    Limit: PageSize | None = None
    # The last ExecutorId of the page before.
    Next: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest for a Next that no page has."""
        require(self.Next is None or is_executor_id(self.Next), WRONG_NEXT)


class HistoryEntry(Struct, omit_defaults=True):
    """One execution. What is counted is there when all of its targets are over."""

    ExecutorId: ExecutorId
    CreateTime: Time
    By: Annotated[str, Meta(description="The name of the token that started it.")] = ""
    Total: Annotated[int | None, Meta(description="Targets.")] = None
    Succeeded: int | None = None
    Failed: int | None = None
    EndTime: Annotated[float | None, Meta(description="When its last target ended.")] = None


class HistoryPage(Struct):
    """Executions, the newest first. Next asks for those before them; null: there are none."""

    Executions: list[HistoryEntry]
    Next: str | None = None
