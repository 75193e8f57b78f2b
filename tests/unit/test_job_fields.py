"""Whatever is done with a job, it is done with each of its fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from chalicelib import store
from chalicelib.domain.errors import InvalidRequest
from chalicelib.schemas.audit import AuditRequest
from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.schemas.jobs import JobAnswer, JobRequest
from chalicelib.schemas.parsing import parse
from chalicelib.services import audit, jobs, starts
from chalicelib.store.models import FIELDS as STORED
from tests.support.clock import TickingClock
from tests.support.job_fields import (
    ADDITIONS,
    CHANGED_JOB,
    DEFAULTS,
    FIELDS,
    FULL_JOB,
    REQUIRED,
    SECRET,
    TEXTS,
)
from tests.unit.callers import ADMIN

CONTRACT = Path(__file__).resolve().parents[2] / "docs/contract.md"
LIST = "a field is in models._Command, JobRequest, JobAnswer and tests/support/job_fields.py"
# An edit that keeps the secrets.
KEPT = {**FULL_JOB, SECRET: None}
SHOWN = {**FULL_JOB, SECRET: ["*" * len(secret) for secret in FULL_JOB[SECRET]]}


def request(fields: dict[str, Any]) -> JobRequest:
    return parse(json.dumps(fields).encode(), JobRequest)


def shown(job: JobAnswer) -> dict[str, Any]:
    return {name: getattr(job, name) for name in FIELDS}


@pytest.fixture
def job_id(aws: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job that has all of the fields."""
    TickingClock().install(monkeypatch)
    return jobs.create_job(ADMIN, request(FULL_JOB)).JobId


def test_requests_have_these_fields() -> None:
    assert set(JobRequest.__struct_fields__) == FIELDS.keys(), LIST


def test_answers_have_these_fields() -> None:
    assert set(JobAnswer.__struct_fields__) == FIELDS.keys() | {"JobId", "Executors"}, LIST


def test_all_but_the_secrets_are_stored_under_their_names() -> None:
    assert set(STORED) == FIELDS.keys() - {SECRET}, LIST


@pytest.mark.parametrize("name", FIELDS)
def test_the_contract_has_each_field(name: str) -> None:
    table = CONTRACT.read_text().split("\n## Job\n")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert any(f"| {name}" in row or f", and {name} |" in row for row in rows)


def test_a_new_job_has_what_was_sent(job_id: str) -> None:
    assert shown(jobs.get_job(ADMIN, job_id)) == SHOWN


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_left_out_of_a_new_job_has_its_default(aws: None, name: str) -> None:
    sent = {field: value for field, value in FULL_JOB.items() if field != name}
    if FIELDS[name].default is REQUIRED:
        with pytest.raises(InvalidRequest, match=f"{name} is required"):
            request(sent)
    else:
        job = jobs.create_job(ADMIN, request(sent))
        assert shown(jobs.get_job(ADMIN, job.JobId)) == {**SHOWN, name: DEFAULTS[name]}


@pytest.mark.parametrize("name", FIELDS)
def test_an_edit_stores_a_field_and_the_audit_names_it(job_id: str, name: str) -> None:
    changed = CHANGED_JOB[name]
    answer = jobs.edit_job(ADMIN, job_id, request({**KEPT, name: changed}))
    expected = {**SHOWN, name: ["***"] if name == SECRET else changed}
    assert shown(answer) == expected
    assert shown(jobs.get_job(ADMIN, job_id)) == expected
    assert audit.read_page(ADMIN, AuditRequest(JobId=job_id)).Entries[0].Fields == [name]


def test_an_edit_without_a_change_names_no_field(job_id: str) -> None:
    assert shown(jobs.edit_job(ADMIN, job_id, request(KEPT))) == SHOWN
    assert audit.read_page(ADMIN, AuditRequest(JobId=job_id)).Entries[0].Fields == []


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_edit_clears_a_field(job_id: str, name: str) -> None:
    answer = jobs.edit_job(ADMIN, job_id, request({**KEPT, name: DEFAULTS[name]}))
    assert shown(answer) == {**SHOWN, name: DEFAULTS[name]}
    assert shown(jobs.get_job(ADMIN, job_id)) == shown(answer)


@pytest.mark.parametrize("name", [*ADDITIONS, SECRET])
def test_an_edit_without_an_addition_keeps_it(job_id: str, name: str) -> None:
    sent = {field: value for field, value in KEPT.items() if field != name}
    for edit in (sent, {**sent, name: None}):
        assert shown(jobs.edit_job(ADMIN, job_id, request(edit))) == SHOWN


def test_an_execution_has_all_of_its_job(job_id: str) -> None:
    start = StartRequest([Target("c1", "n1")])
    executor_id = starts.start_job(ADMIN, job_id, start).Executors[-1]
    execution = store.executions.get_execution(job_id, executor_id)
    job = store.jobs.get_job(job_id)
    for name in FIELDS.keys() - {SECRET} | {"Sealed"}:
        assert getattr(execution, name) == getattr(job, name)
    assert execution.Sealed


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_holds_a_nul(name: str) -> None:
    sent = FULL_JOB[name]
    wrong = sent + "\0" if isinstance(sent, str) else [*sent[:-1], sent[-1] + "\0"]
    with pytest.raises(InvalidRequest, match=name):
        request({**FULL_JOB, name: wrong})
