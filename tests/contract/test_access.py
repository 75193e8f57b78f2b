"""Every route, with every kind of token: which get in, how the others are refused, what stays secret."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from chalicelib.openapi.document import OPERATIONS
from dev.tokens import make_token, revoke_token
from tests.support.waiting import eventually

from .backstage import Backstage
from .client import Api, Json, fields, ok, refused, target, unique

HARMLESS: Json = {"Privileged": False, "User": "app"}
AS_ROOT: list[Json] = [{"Privileged": True}, {"User": "root"}, {"User": "0:0"}]
ROLES = ("viewer", "operator", "admin")
# API Gateway goes on believing what it knows of a token for a minute.
CACHE_SECONDS = 90

MakeToken = Callable[..., Api]


class Route:
    """One route: who may use it, and a request that succeeds if it is allowed."""

    def __init__(
        self,
        name: str,
        roles: tuple[str, ...],
        send: Callable[[Api, Json, str], requests.Response],
        success: tuple[int, ...] = (200,),
    ) -> None:
        self.name, self.roles, self.send, self.success = name, roles, send, success


def _edited(job: Json) -> Json:
    return {**job, "Cmd": "ps"}


ROUTES = [
    Route("list", ROLES, lambda api, job, _: api.jobs(job["AppName"])),
    Route(
        "create",
        ROLES[2:],
        lambda api, job, _: api.create(
            fields(**HARMLESS, AppName=job["AppName"], Name=unique("n"))
        ),
    ),
    Route("get", ROLES, lambda api, job, _: api.get(job["JobId"])),
    Route("edit", ROLES[2:], lambda api, job, _: api.put(job["JobId"], _edited(job))),
    Route("delete", ROLES[2:], lambda api, job, _: api.delete(job["JobId"]), (202,)),
    Route(
        "start", ROLES[1:], lambda api, job, _: api.start(job["JobId"], [target(unique("node"))])
    ),
    Route("inspect", ROLES, lambda api, job, executor: api.inspect(job["JobId"], executor)),
    Route(
        "log",
        ROLES,
        lambda api, job, executor: api.log(job["JobId"], executor, "c1"),
        (200, 302),
    ),
    Route("history", ROLES, lambda api, job, _: api.history(job["JobId"])),
    Route("openapi", ROLES, lambda api, job, _: api.send("GET", "/openapi.json")),
    Route("audit", ROLES[2:], lambda api, job, _: api.audit(JobId=job["JobId"])),
]
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


def test_every_route_of_the_api_is_tried() -> None:
    assert len({route.name for route in ROUTES}) == len(OPERATIONS)


@pytest.fixture(scope="module")
def as_token(api: Api) -> Callable[[str | None], Api]:
    """The API, to a caller that sends this Authorization header (None: no header)."""

    def make(header: str | None) -> Api:
        others = {name: value for name, value in api.headers.items() if name != "Authorization"}
        return Api(api.base, others if header is None else {**others, "Authorization": header})

    return make


@pytest.fixture(scope="module")
def make(aws: Any, as_token: Callable[[str | None], Api]) -> MakeToken:
    """Makes a token and gives the API to its owner; the same token for the same rights."""
    made: dict[tuple[str, ...], Api] = {}

    def make(role: str, *options: str, name: str = "matrix") -> Api:
        wishes = (name, role, *options)
        if wishes not in made:
            token = make_token(aws.environment, name, "--role", role, *options)
            made[wishes] = as_token(f"Bearer {token}")
        return made[wishes]

    return make


def token_of(api: Api) -> str:
    return api.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(scope="module")
def own() -> str:
    """The application that bound tokens are bound to."""
    return unique("own")


@pytest.fixture
def job(api: Api, own: str) -> Json:
    """A harmless job of that application."""
    return api.new_job(**HARMLESS, AppName=own, Name=unique("n"))


@pytest.fixture
def executor(api: Api, job: Json) -> str:
    """An execution of that job."""
    one = {"ContainerId": "c1", "NodeId": unique("node")}
    return api.new_execution(job["JobId"], [one])


def _denied(response: requests.Response, status: int, error: str) -> None:
    """A refusal, with our body or the gateway's own."""
    assert response.status_code == status, (response.status_code, response.text[:500])
    body = json.loads(response.content.decode())
    assert body.get("id", error) == error
    assert body.get("message") or body.get("Message")


# Routes, roles, applications


@every_route
@pytest.mark.parametrize(("role", "bound"), [*product(ROLES, ("all", "own", "foreign"))])
def test_route_by_role_and_application(
    api: Api,
    make: MakeToken,
    own: str,
    job: Json,
    executor: str,
    route: Route,
    role: str,
    bound: str,
) -> None:
    options = {"all": (), "own": ("--app", "x", "--app", own), "foreign": ("--app", "y")}[bound]
    answer = route.send(make(role, *options), job, executor)
    if role not in route.roles:
        assert role in refused(answer, 403, "forbidden")
    elif bound != "foreign" or route.name == "openapi":
        assert answer.status_code in route.success, answer.text[:500]
        return
    elif route.name == "list":
        assert ok(answer) == []
    elif route.name == "audit":
        assert ok(answer) == {"Entries": [], "Next": None}
    elif route.name == "create":
        assert "bound to y" in refused(answer, 403, "forbidden")
    else:
        refused(answer, 404, "job_id_not_found", job["JobId"])
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


# Tokens that are none


@every_route
def test_no_token(
    as_token: Callable[..., Api], api: Api, job: Json, executor: str, route: Route
) -> None:
    _denied(route.send(as_token(None), job, executor), 401, "unauthorized")
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


@every_route
def test_malformed_token(
    as_token: Callable[..., Api], api: Api, job: Json, executor: str, route: Route, token: str
) -> None:
    for header in ("Bearer x", token, f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}"):
        _denied(route.send(as_token(header), job, executor), 401, "unauthorized")
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


@every_route
def test_unknown_token(
    as_token: Callable[..., Api], api: Api, job: Json, executor: str, route: Route
) -> None:
    _denied(route.send(as_token(f"Bearer ajt_{'x' * 43}"), job, executor), 403, "forbidden")
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


@pytest.fixture(scope="module")
def expired(make: MakeToken, backstage: Backstage) -> Api:
    """An administrator's token that was good until a moment ago."""
    api = make("admin", "--root", name="expired")
    backstage.expire_token(token_of(api))
    return api


@every_route
def test_expired_token(api: Api, expired: Api, job: Json, executor: str, route: Route) -> None:
    _denied(route.send(expired, job, executor), 403, "forbidden")
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


@pytest.fixture(scope="module")
def revoked(aws: Any, make: MakeToken) -> Api:
    """An administrator's token that did work, until it was revoked."""
    name = uuid4().hex
    api = make("admin", "--root", name=name)
    ok(api.jobs())
    revoke_token(aws.environment, name)
    eventually(lambda: _denied(api.jobs(), 403, "forbidden"), CACHE_SECONDS)
    return api


@every_route
def test_revoked_token(api: Api, revoked: Api, job: Json, executor: str, route: Route) -> None:
    _denied(route.send(revoked, job, executor), 403, "forbidden")
    assert api.job(job["JobId"]) == {**job, "Executors": [executor]}


# What a role or a token lacks beside


@pytest.mark.parametrize("change", AS_ROOT, ids=str)
def test_root_is_a_right_of_its_own(
    api: Api, make: MakeToken, own: str, job: Json, change: Json
) -> None:
    as_root = {**job, **change}
    without, may = make("admin"), make("admin", "--root")
    for attempt in (
        without.create({**as_root, "Name": unique("n")}),
        without.put(job["JobId"], as_root),
    ):
        assert "--root" in refused(attempt, 403, "forbidden")
    assert api.job(job["JobId"]) == job
    ok(may.put(job["JobId"], as_root))
    targets = [target(unique("node"))]
    for role in ("operator", "admin"):
        assert "--root" in refused(make(role).start(job["JobId"], targets), 403, "forbidden")
    assert api.job(job["JobId"])["Executors"] == []
    ok(make("operator", "--root").start(job["JobId"], targets))
    ok(may.create({**as_root, "Name": unique("n")}))


def test_a_bound_token_moves_no_job_out(api: Api, make: MakeToken, own: str, job: Json) -> None:
    bound = make("admin", "--app", "x", "--app", own)
    answer = bound.put(job["JobId"], {**job, "AppName": unique()})
    assert own in refused(answer, 403, "forbidden")
    assert api.job(job["JobId"]) == job


def test_a_bound_token_lists_its_own(make: MakeToken, own: str, job: Json, api: Api) -> None:
    foreign = api.new_job()
    listed = ok(make("viewer", "--app", "x", "--app", own).jobs())
    assert job["JobId"] in {one["JobId"] for one in listed}
    assert {one["AppName"] for one in listed} == {own}
    assert ok(make("viewer", "--app", "x", "--app", own).jobs(foreign["AppName"])) == []


def test_a_foreign_job_is_as_one_that_does_not_exist(make: MakeToken, job: Json) -> None:
    """Also if the execution does not exist: the answer must not show that the job does."""
    foreign = make("admin", "--app", "y")
    for executor in ("1.000000", "nonsense"):
        refused(foreign.inspect(job["JobId"], executor), 404, "job_id_not_found", job["JobId"])
        refused(foreign.log(job["JobId"], executor, "c"), 404, "job_id_not_found", job["JobId"])


def test_a_token_for_an_application_beyond_ascii(make: MakeToken, api: Api) -> None:
    app = unique("应用")
    api.new_job(**HARMLESS, AppName=app)
    assert [one["AppName"] for one in ok(make("viewer", "--app", app, name="看").jobs())] == [app]


# Secrecy


def test_tokens_stand_nowhere(
    make: MakeToken, as_token: Callable[..., Api], backstage: Backstage, api_log: Path | None
) -> None:
    good = make("viewer", name="secrecy")
    unknown = as_token(f"Bearer ajt_{'y' * 43}")
    malformed = as_token(f"Basic {token_of(good)}")
    secrets = [token_of(one)[4:] for one in (good, unknown)]
    answers = [one.jobs() for one in (good, unknown, malformed)]
    answers += [one.create(fields()) for one in (good, unknown, malformed)]
    for answer in answers:
        assert not any(secret in answer.text + str(answer.headers) for secret in secrets)
    for table, item in backstage.everything():
        assert not any(secret in str(item) for secret in secrets), table
    if api_log:
        eventually(lambda: _logged(api_log, "secrecy"))
        log = api_log.read_text()
        assert not any(secret in log for secret in secrets)


def _logged(log: Path, name: str) -> None:
    """The refusal of this token is in the log, with its name."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    refusals = [line for line in lines if line["event"] == "refused"]
    assert any(line.get("token") == name and "viewer" in line["reason"] for line in refusals)
