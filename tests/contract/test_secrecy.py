"""A secret is nowhere but in the request that sets it."""

import base64
import json
from pathlib import Path

import pytest
import requests

from .backstage import Backstage, Node, finished
from .client import Api, Json, fields, least, ok, target, unique

JSON = {"Content-Type": "application/json"}


def _forms(marker: str) -> list[bytes]:
    """The marker and what hides it only from a glance."""
    plain = marker.encode()
    shifted = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, plain[::-1], plain.hex().encode(), *shifted]


def _absent(marker: str, content: bytes, where: str) -> None:
    for form in _forms(marker):
        assert form not in content, f"a secret is in {where}"


def _bytes_of(item: Json) -> bytes:
    """An item with its binary values as they are."""
    binary: list[bytes] = []

    def keep(value: bytes) -> str:
        binary.append(value)
        return ""

    return json.dumps(item, default=keep, ensure_ascii=False).encode() + b"".join(binary)


def _nowhere(marker: str, backstage: Backstage, api_log: Path | None) -> None:
    for table, item in backstage.everything():
        _absent(marker, _bytes_of(item), table)
    if api_log:
        _absent(marker, api_log.read_bytes(), "the API's log")


def test_secret_stands_nowhere(
    api: Api, backstage: Backstage, node: Node, api_log: Path | None
) -> None:
    marker = unique("MARKER")
    answers: list[requests.Response] = []

    def note(answer: requests.Response) -> requests.Response:
        answers.append(answer)
        return answer

    body = fields(SecretArgs=[f"a {marker}", f"b {marker}"])
    job = ok(note(api.create(body)))
    job_id = job["JobId"]
    note(api.get(job_id))
    note(api.jobs(job["AppName"]))
    note(api.create(body))
    job = ok(note(api.put(job_id, {**body, "SecretArgs": [job["SecretArgs"][0], f"c {marker}"]})))
    targets = [target(node.node_id), target(unique("node"))]
    executor = ok(note(api.start(job_id, targets)))["Executors"][-1]
    note(api.inspect(job_id, executor))
    backstage.put_results(
        (job_id, executor), [(targets[0], finished(targets[0], b"the command's own words"))]
    )
    note(api.inspect(job_id, executor))
    for one in targets:
        note(api.log(job_id, executor, one["ContainerId"]))
    note(api.delete(job_id))
    for answer in answers:
        _absent(marker, answer.content + str(answer.headers).encode(), answer.url)
    for message in backstage.messages(node, 1):
        _absent(marker, json.dumps(message).encode(), "a message")
    _nowhere(marker, backstage, api_log)
    # The search does find what is there.
    assert any(job["AppName"].encode() in _bytes_of(item) for _, item in backstage.everything())
    if api_log:
        assert job_id.encode() in api_log.read_bytes()


@pytest.mark.parametrize("route", ["create", "put"])
def test_refusal_does_not_repeat_the_secret(
    api: Api, backstage: Backstage, api_log: Path | None, route: str
) -> None:
    marker = unique("MARKER")
    job = api.new_job()

    def attempt(body: bytes) -> requests.Response:
        if route == "create":
            return api.send("POST", "/jobs", body, JSON)
        return api.send("PUT", f"/jobs/{job['JobId']}", body, JSON)

    wrong: list[Json] = [
        {"SecretArgs": marker},
        {"SecretArgs": {marker: marker}},
        {"SecretArgs": [marker, 1]},
        {"SecretArgs": [[marker]]},
        {"SecretArgs": [marker] * 33},
        {"SecretArgs": [marker * 100]},
        {"SecretArgs": [marker + "\x00"]},
        {"SecretArgs": [marker], "Cmd": "'"},
        {"SecretArgs": [marker], "Name": None},
        {"SecretArgs": [marker], "Privileged": "x"},
    ]
    if route == "put":
        wrong.append({"SecretArgs": [marker, "***"]})
    bodies = [json.dumps(least(**each)).encode() for each in wrong]
    bodies.append(json.dumps(least(SecretArgs=[marker])).encode()[:-1])
    bodies.append(json.dumps([marker]).encode())
    bodies.append(json.dumps(marker).encode())
    for body in bodies:
        answer = attempt(body)
        assert answer.status_code == 400, answer.text[:500]
        _absent(marker, answer.content, "a refusal")
    _nowhere(marker, backstage, api_log)
