"""Roles, the bounds of a token, and what each service makes of them."""

import dataclasses

import pytest

from app import app
from chalicelib import store
from chalicelib.domain.access import GRANTS, Caller, Permission, Role, is_root
from chalicelib.domain.errors import ExecutionNotFound, Forbidden, JobNotFound
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services import downloads, inspection, jobs, starts
from chalicelib.store.models import Job
from tests.support.builders import serve_node
from tests.support.clock import Clock
from tests.unit.callers import ADMIN, caller

OF_A = caller(apps=("a", "c"))
OF_B = caller(apps=("b",))
NO_ROOT = caller(may_run_as_root=False)
START = StartRequest([Target("c1", "n1")])
ROOT_USERS = ["root", "root:root", "root:1000", "0", "0:0", "00", "000:5"]
OTHER_USERS = ["", "app", "1000", "1000:0", "app:root", "rooty", "Root", "10", "0x0", "0a"]


def request(**changes: object) -> JobRequest:
    return JobRequest(**{"AppName": "a", "Name": "n", "Cmd": "true", **changes})  # type: ignore[arg-type]


@pytest.fixture
def job_id(aws: None) -> str:
    """A job of the application a."""
    serve_node()
    return jobs.create_job(ADMIN, request()).JobId


def test_every_route_needs_a_token_and_a_permission() -> None:
    """But a browser's preflights, which come without a token."""
    routes = [
        (method, path, route)
        for path, methods in app.routes.items()
        for method, route in methods.items()
        if method != "OPTIONS"
    ]
    assert len(routes) >= 8
    for method, path, route in routes:
        where = f"{method} {path}"
        assert route.authorizer is not None, where
        assert isinstance(getattr(route.view_function, "permission", None), Permission), where


def test_each_role_may_what_the_one_before_it_may() -> None:
    assert GRANTS[Role.VIEWER] < GRANTS[Role.OPERATOR] < GRANTS[Role.ADMIN]
    assert GRANTS[Role.ADMIN] == set(Permission)


@pytest.mark.usefixtures("aws")
def test_only_what_the_caller_may_see_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        jobs.create_job(ADMIN, request(AppName=name))
    asked: list[str | None] = []
    list_jobs = store.jobs.list_jobs
    monkeypatch.setattr(store.jobs, "list_jobs", lambda app: asked.append(app) or list_jobs(app))
    assert [job.AppName for job in jobs.list_jobs(OF_A, None)] == ["a", "c"]
    assert jobs.list_jobs(OF_A, "b") == []
    assert [job.AppName for job in jobs.list_jobs(OF_A, " c ")] == ["c"]
    for nothing in (" ", "\x1c"):
        assert jobs.list_jobs(ADMIN, nothing) == []
    assert asked[:3] == ["a", "c", "c"]
    assert [job.AppName for job in jobs.list_jobs(ADMIN, None)] == ["a", "b", "c"]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_a_role_without_the_permission_is_told_so(role: Role, permission: Permission) -> None:
    if permission in GRANTS[role]:
        caller(role=role).require(permission)
        return
    with pytest.raises(Forbidden, match=f"{role} may not {permission}"):
        caller(role=role).require(permission)


@pytest.mark.parametrize("user", ROOT_USERS)
def test_root_by_any_name(user: str) -> None:
    assert is_root(user)
    with pytest.raises(Forbidden, match="--root"):
        NO_ROOT.require_root(False, user)


@pytest.mark.parametrize("user", OTHER_USERS)
def test_users_that_are_not_root(user: str) -> None:
    assert not is_root(user)
    NO_ROOT.require_root(False, user)


def test_privileged_is_as_much_as_root() -> None:
    with pytest.raises(Forbidden, match="--root"):
        NO_ROOT.require_root(True, "app")
    ADMIN.require_root(True, "root")


def test_the_list_shows_what_the_token_is_bound_to(job_id: str) -> None:
    jobs.create_job(ADMIN, request(AppName="b"))
    jobs.create_job(ADMIN, request(AppName="c"))
    assert [job.AppName for job in jobs.list_jobs(ADMIN, None)] == ["a", "b", "c"]
    assert [job.AppName for job in jobs.list_jobs(OF_A, None)] == ["a", "c"]
    assert jobs.list_jobs(OF_A, "b") == []
    assert [job.AppName for job in jobs.list_jobs(OF_B, "b")] == ["b"]


def test_a_moved_job_lists_what_its_reader_can_inspect(job_id: str) -> None:
    both = caller(apps=("a", "b"))
    started = []
    for name in ("b", "a", "b"):
        started.append(starts.start_job(ADMIN, job_id, START).Executors[-1])
        jobs.edit_job(ADMIN, job_id, request(AppName=name))
    started.append(starts.start_job(ADMIN, job_id, START).Executors[-1])
    in_a, in_b = [started[0], started[2]], [started[1], started[3]]
    for who, seen in ((ADMIN, started), (both, started), (OF_B, in_b)):
        assert jobs.get_job(who, job_id).Executors == seen
        assert jobs.list_jobs(who, "b")[0].Executors == seen
        for executor_id in started:
            if executor_id in seen:
                inspection.inspect_execution(who, job_id, executor_id)
            else:
                with pytest.raises(JobNotFound):
                    inspection.inspect_execution(who, job_id, executor_id)
    answer = starts.start_job(OF_B, job_id, START)
    assert answer.Executors[:-1] == in_b
    jobs.edit_job(ADMIN, job_id, request(AppName="a"))
    assert jobs.get_job(OF_A, job_id).Executors == in_a


def test_a_start_after_a_move_belongs_to_the_new_application(clock: Clock, job_id: str) -> None:
    """Also if the clock of the caller that moved it was ahead."""
    clock.now += 60
    jobs.edit_job(ADMIN, job_id, request(AppName="b"))
    clock.now -= 60
    executor_id = starts.start_job(OF_B, job_id, START).Executors[-1]
    assert jobs.get_job(OF_B, job_id).Executors == [executor_id]
    assert starts.start_job(OF_B, job_id, START).Executors[0] == executor_id


def test_a_foreign_job_is_not_there(job_id: str) -> None:
    executor_id = starts.start_job(ADMIN, job_id, START).Executors[-1]
    for attempt in (
        lambda: jobs.get_job(OF_B, job_id),
        lambda: jobs.edit_job(OF_B, job_id, request(AppName="b")),
        lambda: jobs.delete_job(OF_B, job_id),
        lambda: starts.start_job(OF_B, job_id, START),
        lambda: inspection.inspect_execution(OF_B, job_id, executor_id),
        lambda: inspection.inspect_execution(OF_B, job_id, "1.000000"),
        lambda: inspection.inspect_execution(OF_B, job_id, "no execution"),
        lambda: downloads.read_log(OF_B, job_id, executor_id, "c1"),
    ):
        with pytest.raises(JobNotFound) as refusal:
            attempt()
        assert refusal.value.message == job_id
    assert jobs.get_job(OF_A, job_id).Executors == [executor_id]


def test_ones_own_job_says_when_an_execution_is_missing(job_id: str) -> None:
    for executor_id in ("1.000000", "no execution"):
        with pytest.raises(ExecutionNotFound):
            inspection.inspect_execution(OF_A, job_id, executor_id)


def test_an_execution_stays_with_the_application_that_it_ran_for(job_id: str) -> None:
    executor_id = starts.start_job(ADMIN, job_id, START).Executors[-1]
    jobs.edit_job(ADMIN, job_id, request(AppName="b"))
    assert inspection.inspect_execution(OF_A, job_id, executor_id).ExecutorId == executor_id
    with pytest.raises(JobNotFound):
        inspection.inspect_execution(OF_B, job_id, executor_id)
    jobs.delete_job(ADMIN, job_id)
    assert inspection.inspect_execution(OF_A, job_id, executor_id).ExecutorId == executor_id


def test_no_job_gets_into_a_foreign_application(job_id: str) -> None:
    with pytest.raises(Forbidden, match="bound to a, c"):
        jobs.create_job(OF_A, request(AppName="b"))
    with pytest.raises(Forbidden, match="bound to a, c"):
        jobs.edit_job(OF_A, job_id, request(AppName="b"))
    assert [job.AppName for job in jobs.list_jobs(ADMIN, None)] == ["a"]
    assert jobs.edit_job(OF_A, job_id, request(AppName="c")).AppName == "c"


@pytest.mark.parametrize("as_root", [{"Privileged": True}, {"User": "0:0"}], ids=str)
def test_a_job_as_root_needs_the_right(job_id: str, as_root: dict[str, object]) -> None:
    with pytest.raises(Forbidden, match="--root"):
        jobs.create_job(NO_ROOT, request(Name="other", **as_root))
    with pytest.raises(Forbidden, match="--root"):
        jobs.edit_job(NO_ROOT, job_id, request(**as_root))
    jobs.edit_job(ADMIN, job_id, request(**as_root))
    with pytest.raises(Forbidden, match="--root"):
        starts.start_job(NO_ROOT, job_id, START)
    assert jobs.get_job(ADMIN, job_id).Executors == []
    jobs.edit_job(NO_ROOT, job_id, request(User="app"))
    assert len(starts.start_job(NO_ROOT, job_id, START).Executors) == 1


def test_what_a_start_needs_is_checked_on_the_job_that_it_runs(
    job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit between reading and starting: the start reads again, and so does the check."""
    read = store.jobs.get_job
    edits = [{"User": "root"}]

    def read_then_edited(job_id: str) -> Job:
        job = read(job_id)
        if edits:
            jobs.edit_job(ADMIN, job_id, request(**edits.pop()))
        return job

    monkeypatch.setattr(store.jobs, "get_job", read_then_edited)
    with pytest.raises(Forbidden, match="--root"):
        starts.start_job(NO_ROOT, job_id, START)


def test_an_application_is_known_however_its_letters_are_composed() -> None:
    bound = caller(apps=("cafe\u0301",))
    assert bound.sees("caf\u00e9")
    assert not bound.sees("cafe")


@pytest.mark.parametrize(
    ("who", "rule", "own_only"), [(ADMIN, False, False), (ADMIN, True, True), (OF_A, False, True)]
)
def test_a_start_remembers_that_it_is_for_its_own_containers_alone(
    job_id: str, monkeypatch: pytest.MonkeyPatch, who: Caller, rule: bool, own_only: bool
) -> None:
    changed = dataclasses.replace(starts.settings, own_containers_only=rule)
    monkeypatch.setattr(starts, "settings", changed)
    started = starts.start_job(who, job_id, START).Executors[-1]
    assert store.executions.get_execution(job_id, started).OwnContainersOnly is own_only
