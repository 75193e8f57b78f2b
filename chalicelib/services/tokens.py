"""Bearer tokens: made and revoked on the command line, looked up for the requests that show them."""

import hashlib
import json
import re
import time
from secrets import token_urlsafe

import structlog
from msgspec import Struct

from chalicelib import store
from chalicelib.domain import labels
from chalicelib.domain.access import Caller, Role
from chalicelib.domain.errors import Forbidden, InvalidRequest, Unauthorized, require
from chalicelib.services import audit
from chalicelib.services.audit import Action
from chalicelib.store.models import AuditEntry, Token

log = structlog.stdlib.get_logger(__name__)

MAX_DAYS = 366
# This shows people who find a token what it is, and also programs that search for leaked secrets.
_MARK = "ajt_"
_RANDOM_BYTES = 32
_HEADER = re.compile(rf"(?i:bearer) +({_MARK}[\w-]{{43}}) *", re.ASCII)
_ID_LENGTH = 12
# API Gateway takes at most 8 KB from an authorizer; characters of other scripts take six bytes there.
_MAX_APPS_BYTES = 4096
# A use is noted at most this often: the list of tokens shows which are in use, but not to the second.
_USE_NOTED_SECONDS = 300
_DAY_SECONDS = 86_400


class NewToken(Struct, kw_only=True):
    """What a new token allows."""

    name: str
    role: Role
    apps: list[str]
    days: int
    may_run_as_root: bool

    def check(self) -> None:
        """Raises InvalidRequest, which says what would be right, if something is wrong."""
        require(1 <= len(self.name) <= 64, "the name must have 1 to 64 characters")
        require(self.name.isprintable(), "the name must have printable characters only")
        require(1 <= self.days <= MAX_DAYS, f"the days must be 1 to {MAX_DAYS}")
        for app in self.apps:
            require(1 <= len(app) <= 128, "an application's name has 1 to 128 characters")
            if wrong := labels.find_fault(app):
                raise InvalidRequest(f"an application's name {wrong}")
        require(len(json.dumps(self.apps)) <= _MAX_APPS_BYTES, "too many applications for a token")


def create_token(actor: str, new: NewToken) -> str:
    """Makes a token and returns it. It is never shown again. Raises InvalidRequest."""
    # As with the jobs' AppNames: they are compared as they are.
    new.apps = sorted({labels.normalize(app.strip()) for app in new.apps})
    new.check()
    plain = _MARK + token_urlsafe(_RANDOM_BYTES)
    now = time.time()
    token = Token(
        _hash(plain),
        Name=new.name,
        Role=new.role,
        Apps=new.apps,
        MayRunAsRoot=new.may_run_as_root,
        CreateTime=now,
        ExpiresAt=int(now) + new.days * _DAY_SECONDS,
    )
    store.tokens.add_token(token, _entry(actor, Action.CREATE_TOKEN, token))
    return plain


def find_tokens(name_or_id: str) -> list[Token]:
    """The tokens of that name, or the one with that id."""
    return [
        token for token in store.tokens.list_tokens() if name_or_id in (token.Name, id_of(token))
    ]


def revoke_token(actor: str, token: Token) -> None:
    """Makes a token useless: it is gone from the table, and within a minute from the gateway's cache."""
    store.tokens.delete_token(token, _entry(actor, Action.REVOKE_TOKEN, token))


def _entry(actor: str, action: Action, token: Token) -> AuditEntry:
    return audit.describe_token(actor, action, token, id_of(token))


def authenticate(header: str) -> Caller:
    """Who sends this Authorization header.

    Raises Unauthorized if it has no token, Forbidden if the token is no longer valid.
    """
    shown = _HEADER.fullmatch(header)
    if not shown:
        raise Unauthorized("send the header Authorization: Bearer <token>")
    token = store.tokens.find_token(_hash(shown[1]))
    if token is None:
        raise Forbidden(f"token {_hash(shown[1])[:_ID_LENGTH]} is unknown or revoked")
    if token.ExpiresAt <= time.time():
        raise Forbidden(f"token {id_of(token)} of {token.Name} is expired")
    _note_use(token)
    return Caller(
        name=token.Name,
        token_id=id_of(token),
        role=Role(token.Role),
        apps=tuple(token.Apps),
        may_run_as_root=token.MayRunAsRoot,
    )


def id_of(token: Token) -> str:
    """The token's id: it distinguishes tokens of one name, and helps nobody to guess the token."""
    return str(token.Hash[:_ID_LENGTH])


def _hash(plain: str) -> str:
    # The token has 256 random bits: nothing is gained by a slow hash or a salt.
    return hashlib.sha256(plain.encode()).hexdigest()


def _note_use(token: Token) -> None:
    now = time.time()
    if now - (token.LastUsed or 0) < _USE_NOTED_SECONDS:
        return
    try:
        store.tokens.note_use(token, now)
    except Exception:  # a note that is not written must not fail the request
        log.warning("use of a token not noted", token=token.Name, exc_info=True)
