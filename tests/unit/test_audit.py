"""The audit: what is noted of each action, who may read it, and its pages."""

from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib import store
from chalicelib.config import settings
from chalicelib.domain.errors import InvalidRequest
from chalicelib.schemas.audit import AuditAnswer, AuditRequest
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobRequest
from chalicelib.schemas.parsing import parse_query
from chalicelib.services import audit, jobs, starts
from chalicelib.store.models import AuditEntry
from tests.support.builders import serve_node
from tests.support.clock import TickingClock
from tests.unit.callers import ADMIN, caller

pytestmark = pytest.mark.usefixtures("aws")

# Noon of 2017-06-01.
NOW = 1_496_318_400.0
DAY = 86_400
CALLER = caller(name="ci", source_ip="192.0.2.7", request_id="r-1")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> TickingClock:
    return TickingClock(NOW).install(monkeypatch)


def request(**changes: Any) -> JobRequest:
    fields = {"AppName": "a", "Name": "n", "Cmd": "true", "SecretArgs": ["MARKER-1"]}
    return JobRequest(**{**fields, "Env": ["A=MARKER-2"], **changes})


def entries(**wanted: Any) -> list[AuditAnswer]:
    return audit.read_page(ADMIN, AuditRequest(**wanted)).Entries


def day_of(at: str) -> str:
    return datetime.fromtimestamp(int(at[:16]) / 1e6, UTC).date().isoformat()


def add(number: int, app: str = "a", day: int = 0) -> None:
    """An entry that is this many days and seconds old."""
    at = store.audit.to_moment(NOW - day * DAY - number) + f"-{number:08x}"
    day_name = day_of(at)
    AuditEntry(
        day_name, at, Action="job.edit", Actor="x", Name=f"{number}", AppName=app, ExpiresAt=1
    ).save()


def test_an_entry_tells_who_did_what_to_which_job_from_where() -> None:
    job = jobs.create_job(CALLER, request())
    (entry,) = entries()
    assert entry.Action == "job.create"
    assert (entry.Actor, entry.TokenId) == ("ci", CALLER.token_id)
    assert (entry.SourceIp, entry.RequestId) == ("192.0.2.7", "r-1")
    assert (entry.AppName, entry.Name, entry.JobId) == ("a", "n", job.JobId)
    assert NOW < entry.Time < NOW + 60


def test_each_action_is_noted_newest_first() -> None:
    serve_node(heartbeat=NOW)
    job_id = jobs.create_job(CALLER, request()).JobId
    jobs.edit_job(CALLER, job_id, request(User="app"))
    start = StartRequest([Target("c1", "n1"), Target("c2", "n1")])
    executor_id = starts.start_job(CALLER, job_id, start).Executors[-1]
    jobs.delete_job(CALLER, job_id)
    deleted, started, edited, created = entries(JobId=job_id)
    assert (created.Action, edited.Action) == ("job.create", "job.edit")
    assert (started.Action, deleted.Action) == ("job.start", "job.delete")
    assert (started.ExecutorId, started.Targets) == (executor_id, 2)
    assert entries() == [deleted, started, edited, created]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, []),
        ({"Cmd": "false", "Name": "m"}, ["Name", "Cmd"]),
        ({"Privileged": True, "User": "x"}, ["Privileged", "User"]),
        ({"Env": ["A=b"]}, ["Env"]),
        ({"SecretArgs": ["********"]}, []),
        ({"SecretArgs": ["MARKER-1"]}, ["SecretArgs"]),
        ({"SecretArgs": []}, ["SecretArgs"]),
        ({"SecretArgs": ["********", "more"], "ServiceName": "s"}, ["ServiceName", "SecretArgs"]),
    ],
    ids=str,
)
def test_an_edit_names_the_changed_fields(change: dict[str, Any], fields: list[str]) -> None:
    job_id = jobs.create_job(CALLER, request()).JobId
    jobs.edit_job(CALLER, job_id, request(**{"SecretArgs": ["********"], **change}))
    edited = entries()[0]
    assert edited.Fields == fields
    assert edited.MovedFrom is None


def test_no_value_is_in_the_audit() -> None:
    job_id = jobs.create_job(CALLER, request(Cmd="echo MARKER-3")).JobId
    jobs.edit_job(CALLER, job_id, request(SecretArgs=["MARKER-4"], Cmd="echo MARKER-5"))
    assert len(list(AuditEntry.scan())) == 2
    assert not any("MARKER" in str(entry.attribute_values) for entry in AuditEntry.scan())


def test_a_move_is_seen_from_both_applications() -> None:
    job_id = jobs.create_job(CALLER, request()).JobId
    jobs.edit_job(CALLER, job_id, request(AppName="b"))
    for app in ("a", "b"):
        moved = entries(AppName=app)[0]
        assert (moved.AppName, moved.MovedFrom) == ("b", "a")
        assert audit.read_page(caller(apps=(app,)), AuditRequest()).Entries[0] == moved
    assert len(entries(AppName="b")) == 1
    assert audit.read_page(caller(apps=("c",)), AuditRequest()).Entries == []


def test_who_is_bound_to_applications_reads_of_no_tokens() -> None:
    AuditEntry(
        *store.audit.make_key(NOW), Action="token.create", Actor="x", Name="t", ExpiresAt=1
    ).save()
    assert [entry.Action for entry in entries()] == ["token.create"]
    assert audit.read_page(caller(apps=("a",)), AuditRequest()).Entries == []


def test_pages_go_on_where_the_one_before_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Across days, and days without an entry."""
    monkeypatch.setattr(audit, "PAGE_ENTRIES", 3)
    for number in range(4):
        add(number)
        add(number + 10, day=5)
    pages, following = [], ""
    while following is not None:
        page = audit.read_page(ADMIN, AuditRequest(Next=following or None))
        pages.append([entry.Name for entry in page.Entries])
        following = page.Next
    assert pages == [["0", "1", "2"], ["3", "10", "11"], ["12", "13"]]


def test_a_page_reads_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all it read was others', it is empty and tells where to go on."""
    monkeypatch.setattr(audit, "MAX_READ_ENTRIES", 4)
    for number in range(6):
        add(number, app="b")
    add(6, app="a")
    first = audit.read_page(ADMIN, AuditRequest(AppName="a"))
    assert first.Entries == []
    second = audit.read_page(ADMIN, AuditRequest(AppName="a", Next=first.Next))
    assert [entry.Name for entry in second.Entries] == ["6"]
    assert second.Next is None


def test_a_page_reads_only_so_many_days(monkeypatch: pytest.MonkeyPatch) -> None:
    days = [0, 1, 70, 71, 200, 300]
    for number, day in enumerate(days):
        add(number, day=day)
    queried: list[str] = []
    query = AuditEntry.query
    monkeypatch.setattr(
        AuditEntry,
        "query",
        lambda day, *args, **kwargs: queried.append(day) or query(day, *args, **kwargs),
    )
    found, pages, next_ = [], 0, None
    while pages == 0 or next_:
        before = len(queried)
        page = audit.read_page(ADMIN, AuditRequest(Since=0, Next=next_))
        assert len(queried) - before <= audit.MAX_DAYS + 1
        found += [int(entry.Name) for entry in page.Entries]
        pages, next_ = pages + 1, page.Next
    assert found == list(range(len(days)))
    assert pages == 7
    parse_query({"Next": store.audit.before_all_of(store.audit.to_moment(NOW))}, AuditRequest)


def test_entries_at_the_edge_of_a_page_are_shown_once() -> None:
    edge = store.audit.to_moment(NOW)
    ats = [f"{int(edge) - 1:016}-{'f' * 8}", f"{edge}-{'0' * 8}", f"{edge}-{'1' * 8}"]
    for at in ats:
        AuditEntry(day_of(at), at, Action="a", Actor="x", Name="n", ExpiresAt=1).save()

    def between(since: str, before: str) -> list[str]:
        return [entry.At for entry in store.audit.list_newest_first(since, before, None)]

    next_ = store.audit.before_all_of(edge)
    assert between(edge, store.audit.to_moment(NOW + DAY)) == [ats[2], ats[1]]
    assert between(store.audit.go_back(next_, DAY), next_) == [ats[0]]


def test_since_is_included_and_until_is_not() -> None:
    for number in range(5):
        add(number)
    found = entries(Since=NOW - 3, Until=NOW - 1)
    assert [entry.Name for entry in found] == ["2", "3"]


def test_without_since_the_last_thirty_days_are_searched() -> None:
    add(0, day=29)
    add(1, day=31)
    assert [entry.Name for entry in entries()] == ["0"]
    assert [entry.Name for entry in entries(Since=NOW - 40 * DAY)] == ["0", "1"]
    assert [entry.Name for entry in entries(Until=NOW - 30 * DAY)] == ["1"]


@pytest.mark.parametrize(
    "wanted",
    [{"Since": 0}, {"Since": 0, "Next": f"{'9' * 16}-00000000"}, {"Until": 9_999_999_999}],
    ids=str,
)
def test_no_more_days_are_searched_than_are_kept(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    query = AuditEntry.query

    def counting(day: str, *arguments: Any, **options: Any) -> Any:
        asked.append(day)
        return query(day, *arguments, **options)

    monkeypatch.setattr(AuditEntry, "query", counting)
    assert entries(**wanted) == []
    assert len(asked) <= settings.audit_retention_days + 2


@pytest.mark.parametrize(
    "wanted",
    [
        {"Until": 0},
        {"Since": 2e9},
        {"Since": NOW, "Until": NOW - DAY},
        {"Since": NOW, "Until": NOW - 1},
        {"Since": NOW, "Until": NOW - 1, "JobId": "j"},
    ],
    ids=str,
)
def test_spans_without_a_moment(wanted: dict[str, Any]) -> None:
    add(0)
    assert entries(**wanted) == []


def test_entries_expire_after_the_audits_own_retention() -> None:
    jobs.create_job(CALLER, request())
    (entry,) = AuditEntry.scan()
    assert entry.ExpiresAt - NOW == pytest.approx(settings.audit_retention_seconds, abs=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Since", "yesterday"),
        ("Since", "nan"),
        ("Since", "inf"),
        ("Until", "-1"),
        ("Until", "1e300"),
        ("JobId", "x" * 37),
        ("Next", "x"),
        ("Next", "1496318400000000-0000000g"),
        ("Next", "1496318400000000-00000000\n"),
    ],
)
def test_what_cannot_be_asked_for(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        parse_query({name: value}, AuditRequest)


def test_an_empty_parameter_is_none() -> None:
    assert parse_query({"AppName": "", "Since": ""}, AuditRequest) == AuditRequest()
    assert parse_query({"Since": "7.5", "other": "x"}, AuditRequest) == AuditRequest(Since=7.5)
