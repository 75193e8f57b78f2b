"""Tokens: how they are made, found and revoked, by the service and on the command line."""

import re
from typing import Any
from unittest.mock import create_autospec

import pytest
from chalice.app import AuthRequest

from chalicelib import store
from chalicelib.domain.access import Role
from chalicelib.domain.errors import Forbidden, InvalidRequest, Unauthorized
from chalicelib.routes import access
from chalicelib.services import tokens
from chalicelib.services.tokens import NewToken
from chalicelib.store.models import AuditEntry, Token
from chalicelib.tokens import main
from tests.support.clock import NOW, Clock

pytestmark = pytest.mark.usefixtures("aws", "clock")

DAY = 86_400
ACTOR = "me@here"


def new(**changes: Any) -> NewToken:
    fields = {"name": "ci", "role": Role.OPERATOR, "apps": [], "days": 1, "may_run_as_root": False}
    return NewToken(**{**fields, **changes})


def stored() -> Token:
    (token,) = store.tokens.list_tokens()
    return token


def test_a_token_tells_whose_it_is_and_what_it_is_good_for() -> None:
    plain = tokens.create_token(ACTOR, new(apps=["b", "a", "b"], may_run_as_root=True))
    caller = tokens.authenticate(f"Bearer {plain}")
    assert (caller.name, caller.role) == ("ci", Role.OPERATOR)
    assert caller.apps == ("a", "b")
    assert caller.may_run_as_root
    assert caller.token_id == tokens.id_of(stored())


def test_a_token_has_256_random_bits_and_is_not_stored() -> None:
    plain = tokens.create_token(ACTOR, new())
    assert re.fullmatch(r"ajt_[A-Za-z0-9_-]{43}", plain)
    assert plain != tokens.create_token(ACTOR, new())
    for token in store.tokens.list_tokens():
        assert re.fullmatch(r"[0-9a-f]{64}", token.Hash)
        assert plain[4:] not in str(token.attribute_values)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_scheme_in_any_case(scheme: str) -> None:
    assert tokens.authenticate(scheme + tokens.create_token(ACTOR, new())).name == "ci"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer x", "Basic {}", "{}", "Bearer {} {}", "Bearer {}x", "Bearer ajt_ü"],
)
def test_a_header_without_a_token(header: str) -> None:
    plain = tokens.create_token(ACTOR, new())
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        tokens.authenticate(header.replace("{}", plain))


def test_an_unknown_token() -> None:
    tokens.create_token(ACTOR, new())
    with pytest.raises(Forbidden, match="unknown or revoked"):
        tokens.authenticate(f"Bearer ajt_{'x' * 43}")


def test_a_token_expires(clock: Clock) -> None:
    """By itself: DynamoDB removes expired items days later."""
    plain = tokens.create_token(ACTOR, new(days=2))
    clock.now = int(NOW) + 2 * DAY - 1
    tokens.authenticate(f"Bearer {plain}")
    clock.now = int(NOW) + 2 * DAY
    with pytest.raises(Forbidden, match="of ci is expired"):
        tokens.authenticate(f"Bearer {plain}")


def test_a_revoked_token_is_worthless() -> None:
    plain = tokens.create_token(ACTOR, new())
    tokens.revoke_token(ACTOR, stored())
    with pytest.raises(Forbidden, match="unknown or revoked"):
        tokens.authenticate(f"Bearer {plain}")


def test_last_use_is_noted_every_five_minutes(clock: Clock) -> None:
    plain = tokens.create_token(ACTOR, new())
    assert stored().LastUsed is None
    noted = []
    for clock.now in (NOW, NOW + 299, NOW + 300, NOW + 400):
        tokens.authenticate(f"Bearer {plain}")
        noted.append(stored().LastUsed)
    assert noted == [NOW, NOW, NOW + 300, NOW + 300]


def test_a_use_that_cannot_be_noted_is_no_reason_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = tokens.create_token(ACTOR, new())
    broken = create_autospec(store.tokens.note_use, side_effect=OSError("no network"))
    monkeypatch.setattr(store.tokens, "note_use", broken)
    assert tokens.authenticate(f"Bearer {plain}").name == "ci"
    broken.assert_called_once()


def test_noting_a_use_does_not_bring_a_revoked_token_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = tokens.create_token(ACTOR, new())
    found = stored()
    tokens.revoke_token(ACTOR, found)
    monkeypatch.setattr(
        store.tokens, "find_token", create_autospec(store.tokens.find_token, return_value=found)
    )
    tokens.authenticate(f"Bearer {plain}")
    assert store.tokens.list_tokens() == []


def test_making_and_revoking_is_in_the_audit() -> None:
    tokens.create_token(ACTOR, new())
    found = stored()
    tokens.revoke_token(ACTOR, found)
    tokens.revoke_token(ACTOR, found)
    entries = [(entry.Action, entry.Actor, entry.Name) for entry in AuditEntry.scan()]
    assert sorted(entries) == [("token.create", ACTOR, "ci"), ("token.revoke", ACTOR, "ci")]
    rights = {
        "Id": tokens.id_of(found),
        "Role": found.Role,
        "Apps": found.Apps,
        "MayRunAsRoot": found.MayRunAsRoot,
    }
    assert [entry.Token for entry in AuditEntry.scan()] == [rights, rights]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"days": 0},
        {"days": 367},
        {"apps": [""]},
        {"apps": ["x" * 129]},
        {"apps": ["a\u202eb"]},
        {"apps": [f"{number}" + "应" * 127 for number in range(6)]},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_no_token_can_be(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        tokens.create_token(ACTOR, new(**changes))
    assert store.tokens.list_tokens() == []


def test_applications_are_stored_as_jobs_have_them(aws: None) -> None:
    tokens.create_token(ACTOR, new(apps=[" e\u0301 ", "\u00e9", "b"]))
    (token,) = store.tokens.list_tokens()
    assert token.Apps == ["b", "\u00e9"]


# The authorizer

ARN = "arn:aws:execute-api:eu-west-1:123456789012:abcdef/v1/GET/api/jobs"
ALL = "arn:aws:execute-api:eu-west-1:123456789012:abcdef/v1/*/*"


def authorized(header: str) -> tuple[list[str], dict[str, str]]:
    request = AuthRequest("TOKEN", header, ARN)
    answer = access.authorize(request).to_dict(request)
    return answer["policyDocument"]["Statement"][0]["Resource"], answer["context"]


def test_a_good_token_gets_through_to_all_routes() -> None:
    """The gateway keeps the answer for them all."""
    allowed, context = authorized(f"Bearer {tokens.create_token(ACTOR, new(name='上线'))}")
    assert allowed == [ALL]
    assert all(isinstance(value, str) and value.isascii() for value in context.values())


@pytest.mark.parametrize("header", [f"Bearer ajt_{'x' * 43}", "Basic eDp5", ""])
def test_a_bad_token_gets_through_to_none(header: str) -> None:
    assert authorized(header) == ([], {})


# The command line


def run(*arguments: str) -> int:
    return main(arguments)


def test_create_prints_the_token_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "--name", "ci", "--role", "viewer", "--app", "a", "--app", "b") == 0
    plain = capsys.readouterr().out.strip()
    caller = tokens.authenticate(f"Bearer {plain}")
    assert (caller.role, caller.apps, caller.may_run_as_root) == (Role.VIEWER, ("a", "b"), False)
    assert stored().ExpiresAt == int(NOW) + 90 * DAY


def test_list_shows_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    run("create", "--name", "ci", "--role", "admin", "--root", "--days", "1")
    plain = capsys.readouterr().out.strip()
    run("create", "--name", "app's own", "--role", "viewer", "--app", "2048")
    capsys.readouterr()
    assert run("list") == 0
    shown = capsys.readouterr().out
    assert plain[4:] not in shown
    assert store.tokens.list_tokens()[0].Hash not in shown
    header, first, second = shown.splitlines()
    assert header.split()[:4] == ["ID", "NAME", "ROLE", "ROOT"]
    assert "app's own  viewer  no    2048" in first
    assert "2027-01-15 08:00  2027-01-16 08:00  never" in second


def test_revoke_by_name_or_id(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two", "two"):
        run("create", "--name", name, "--role", "viewer")
    capsys.readouterr()
    assert run("revoke", "one") == 0
    assert run("revoke", "two") == 1
    error = capsys.readouterr().err
    ids = [tokens.id_of(token) for token in store.tokens.list_tokens()]
    assert all(one in error for one in ids)
    assert run("revoke", ids[0]) == 0
    assert [tokens.id_of(token) for token in store.tokens.list_tokens()] == [ids[1]]
    assert run("revoke", ids[0]) == 1
    assert "no token has the id or name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--name", "x", "--role", "king"],
        ["create", "--name", "x"],
        ["create", "--role", "viewer"],
        ["create", "--name", "x", "--role", "viewer", "--days", "soon"],
        [],
        ["forget"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2


def test_what_aws_says_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = create_autospec(store.tokens.list_tokens, side_effect=OSError("no such table"))
    monkeypatch.setattr(store.tokens, "list_tokens", broken)
    assert run("list") == 1
    error = capsys.readouterr().err
    assert "no such table" in error
    assert "APPJOBS_PREFIX=" in error
