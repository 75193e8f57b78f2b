"""Makes, lists and revokes tokens: `python -m chalicelib.tokens --help`.

The environment says which deployment they belong to, as it does for the API: APPJOBS_PREFIX, AWS_*.
"""

import argparse
import getpass
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.access import Role
from chalicelib.domain.errors import AppjobsError, InvalidRequest
from chalicelib.services import tokens
from chalicelib.services.tokens import MAX_DAYS, NewToken
from chalicelib.store.models import Token

_COLUMNS = ("ID", "NAME", "ROLE", "ROOT", "APPLICATIONS", "CREATED", "EXPIRES", "LAST USED")


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the arguments say; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.do(options)
    except AppjobsError as error:
        return _fail(error.message)
    except Exception as error:  # noqa: BLE001 - the person at the terminal can mend AWS, we cannot
        return _fail(f"AWS, with APPJOBS_PREFIX={settings.prefix}: {error}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chalicelib.tokens", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="create|list|revoke")
    _add_create(
        commands.add_parser("create", help="make a token and print it; only now is it shown")
    )
    listing = commands.add_parser("list", help="show all tokens; the secret part is stored nowhere")
    listing.set_defaults(do=_list)
    revoking = commands.add_parser("revoke", help="make a token useless, within a minute")
    revoking.add_argument("token", metavar="ID|NAME", help="as `list` shows it")
    revoking.set_defaults(do=_revoke)
    return parser


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="who or what will use it")
    parser.add_argument("--role", required=True, type=Role, choices=list(Role))
    parser.add_argument(
        "--app",
        action="append",
        default=[],
        metavar="APPNAME",
        help="bind it to this application (several times for several): it sees only its jobs, and runs "
        "them only in its containers; default: all",
    )
    parser.add_argument(
        "--days",
        type=int,
        default=90,
        help=f"how long it is valid, at most {MAX_DAYS} (%(default)s)",
    )
    parser.add_argument(
        "--root",
        action="store_true",
        help="it may run as root: Privileged, User root, or an empty User if the container's is root; "
        "and in containers that give access to their node",
    )
    parser.set_defaults(do=_create)


def _create(options: argparse.Namespace) -> None:
    new = NewToken(
        name=options.name,
        role=options.role,
        apps=options.app,
        days=options.days,
        may_run_as_root=options.root,
    )
    print(tokens.create_token(_actor(), new))


def _list(_: argparse.Namespace) -> None:
    rows = [_COLUMNS, *map(_row, store.tokens.list_tokens())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _row(token: Token) -> tuple[str, ...]:
    return (
        tokens.id_of(token),
        token.Name,
        token.Role,
        "yes" if token.MayRunAsRoot else "no",
        ",".join(token.Apps) or "all",
        _date(token.CreateTime),
        _date(token.ExpiresAt),
        _date(token.LastUsed) if token.LastUsed else "never",
    )


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M}"


def _revoke(options: argparse.Namespace) -> None:
    found = tokens.find_tokens(options.token)
    if not found:
        raise InvalidRequest(f"no token has the id or name {options.token!r}; `list` shows all")
    if len(found) > 1:
        ids = ", ".join(map(tokens.id_of, found))
        raise InvalidRequest(f"several tokens have the name {options.token!r}: revoke by id: {ids}")
    tokens.revoke_token(_actor(), found[0])
    print(f"revoked {tokens.id_of(found[0])} ({found[0].Name})")


def _actor() -> str:
    """The name that the audit notes: the user and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _fail(message: str) -> int:
    print(f"tokens: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
