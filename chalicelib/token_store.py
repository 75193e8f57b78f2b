"""Every read and write of the tokens table."""

from pynamodb.exceptions import DoesNotExist

from chalicelib.models import Token


def add_token(token: Token) -> None:
    """Stores a new token."""
    token.save(Token.Hash.does_not_exist())


def find_token(token_hash: str) -> Token | None:
    """The token with this hash, as it stands now; None where there is none, or none any more."""
    try:
        return Token.get(token_hash, consistent_read=True)
    except DoesNotExist:
        return None


def list_tokens() -> list[Token]:
    """All tokens, by name, then by age. There are few: people make them by hand."""
    return sorted(
        Token.scan(consistent_read=True), key=lambda token: (token.Name, token.CreateTime)
    )


def delete_token(token: Token) -> None:
    """Removes a token, whether or not it is still there."""
    token.delete()


def note_use(token: Token, now: float) -> None:
    """Writes when the token was last used; it must not come back where it was revoked meanwhile."""
    token.update([Token.LastUsed.set(now)], Token.Hash.exists())
