"""The OpenAPI document over HTTP: it is served, and it has every answer that a request can get.

FUZZ is the number of generated requests for each operation, besides a fixed set at the limits of every
parameter and body; `make fuzz` sets it to 450.
"""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .backstage import Backstage, finished
from .client import Api, client_error, ok, target
from .conformance import DOCUMENT

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# Who may call is another test's matter, and API Gateway has no TRACE.
CONFIG = {
    "generation": {"with-security-parameters": False},
    "phases": {"coverage": {"unexpected-methods": ["get", "put", "post", "delete", "patch"]}},
}
schema = schemathesis.openapi.from_dict(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))


def test_the_document_is_served(api: Api) -> None:
    assert ok(api.send("GET", "/openapi.json")) == DOCUMENT


@pytest.fixture(scope="module")
def known(api: Api, backstage: Backstage) -> dict[str, str]:
    """The parameters of a job with an execution and its log."""
    node = backstage.announce()
    one = target(node.node_id)
    job_id = api.new_job()["JobId"]
    executor_id = api.new_execution(job_id, [one])
    backstage.put_results((job_id, executor_id), [(one, finished(one, b"output"))])
    return {"job_id": job_id, "executor_id": executor_id, "ContainerId": one["ContainerId"]}


requests_of_each = settings(
    max_examples=int(os.environ.get("FUZZ") or 10),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@schema.parametrize()
@requests_of_each
def test_any_request(api: Api, case: schemathesis.Case) -> None:
    _send(api, case)


@schema.exclude(method="DELETE").include(path_regex="{").parametrize()
@requests_of_each
def test_any_request_about_what_exists(
    api: Api, known: dict[str, str], case: schemathesis.Case
) -> None:
    case.path_parameters = {name: known[name] for name in case.path_parameters}
    if "ContainerId" in (case.query or {}):
        case.query["ContainerId"] = known["ContainerId"]
    _send(api, case)


# A body that is JSON but for some bytes, and any bytes.
bodies = st.binary(max_size=200) | st.tuples(
    st.sampled_from([b'{"AppName": "', b'{"Cmd": "a", "Env": [', b'{"Target": [{"NodeId": "']),
    st.binary(max_size=20),
    st.sampled_from([b"", b'"}', b"]}", b'"}]}']),
).map(b"".join)


@requests_of_each
@given(
    body=bodies,
    route=st.sampled_from([("POST", "/jobs"), ("PUT", "/jobs/{}"), ("POST", "/jobs/{}/start")]),
)
def test_any_bytes_as_a_body(
    api: Api, known: dict[str, str], body: bytes, route: tuple[str, str]
) -> None:
    method, path = route
    headers = {"Content-Type": "application/json"}
    client_error(api.send(method, path.format(known["job_id"]), body, headers))


def _send(api: Api, case: schemathesis.Case) -> None:
    case.call_and_validate(api.base, headers=api.headers, checks=CHECKS, allow_redirects=False)
