"""Reading the audit."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from chalicelib.domain import labels
from chalicelib.domain.errors import require
from chalicelib.schemas.pages import WRONG_NEXT
from chalicelib.schemas.values import Time

_NEXT = re.compile(r"[0-9]{16}-[0-9a-f]{8}")
_Seconds = Annotated[float, Meta(ge=0, le=9_999_999_999)]


class AuditRequest(Struct, kw_only=True):
    """Which entries of the audit are asked for; times are seconds since 1970."""

    AppName: str | None = None
    # DynamoDB refuses to look for a key of more than 2 KB.
    JobId: Annotated[str, Meta(max_length=36)] | None = None
    Since: _Seconds | None = None
    Until: _Seconds | None = None
    # The Next of the page before.
    Next: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest if no page can have this Next. Normalizes the AppName."""
        require(
            self.Next is None or _NEXT.fullmatch(self.Next) is not None,
            WRONG_NEXT,
        )
        self.AppName = self.AppName and labels.normalize(self.AppName.strip())


class TokenRights(Struct):
    """Which token was made or revoked, and what it is good for."""

    Id: str
    Role: str
    Apps: list[str]
    MayRunAsRoot: bool


class AuditAnswer(Struct, kw_only=True, omit_defaults=True):
    """One entry of the audit; what does not apply is left out."""

    Time: Time
    Action: str
    Actor: str
    Name: str
    TokenId: str | None = None
    SourceIp: str | None = None
    RequestId: str | None = None
    AppName: str | None = None
    MovedFrom: str | None = None
    JobId: str | None = None
    ExecutorId: str | None = None
    Targets: int | None = None
    Fields: list[str] | None = None
    Token: TokenRights | None = None


class AuditPage(Struct):
    """Entries, the newest first. Next asks for the next page; null: there is none."""

    Entries: list[AuditAnswer]
    Next: str | None = None
