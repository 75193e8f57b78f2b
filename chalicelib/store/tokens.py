"""Every read and write of the tokens table."""

from contextlib import suppress

from pynamodb.exceptions import DoesNotExist

from chalicelib.store.models import AuditEntry, Token
from chalicelib.store.transactions import note, transaction, until_settled


class _Gone(Exception):
    """The token is no longer there."""


@until_settled
def add_token(token: Token, entry: AuditEntry) -> None:
    """Stores a new token."""
    with transaction() as writes:
        writes.save(token, Token.Hash.does_not_exist())
        note(writes, entry)


def find_token(token_hash: str) -> Token | None:
    """The token with this hash, as it is now; None if there is none, or none any more."""
    try:
        return Token.get(token_hash, consistent_read=True)
    except DoesNotExist:
        return None


def list_tokens() -> list[Token]:
    """All tokens, by name, then by age. There are few: people make them by hand."""
    return sorted(
        Token.scan(consistent_read=True), key=lambda token: (token.Name, token.CreateTime)
    )


@until_settled
def delete_token(token: Token, entry: AuditEntry) -> None:
    """Removes a token. If somebody else was first, the audit has only that entry."""
    with suppress(_Gone), transaction() as writes:
        writes.delete(token, Token.Hash.exists(), otherwise=_Gone())
        note(writes, entry)


def note_use(token: Token, now: float) -> None:
    """Writes when the token was last used. A token that was revoked meanwhile must not come back."""
    token.update([Token.LastUsed.set(now)], Token.Hash.exists())
