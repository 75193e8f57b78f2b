"""What became of each target, and how much of it one answer holds."""

import json
from typing import Any

import pytest

from tests.conftest import ENGINE_KEYS

from .backstage import Backstage, Node, engine_inspect, finished
from .client import Api, Json, ok, target

MAX_BYTES = 5_000_000


class Started:
    """An execution whose results the test writes."""

    def __init__(self, api: Api, backstage: Backstage, node: Node, count: int = 1) -> None:
        self.api = api
        self.backstage = backstage
        self.targets = [target(node.node_id) for _ in range(count)]
        self.job_id = api.new_job()["JobId"]
        self.id = (self.job_id, api.new_execution(self.job_id, self.targets))

    def end(self, *attributes: Json) -> list[Json]:
        """Gives the first targets these results; returns what inspect says of all."""
        self.backstage.put_results(self.id, zip(self.targets, attributes, strict=False))
        return self.results()

    def results(self) -> list[Json]:
        answer = self.api.execution(*self.id)
        return list(answer["Result"])


@pytest.fixture
def started(api: Api, backstage: Backstage, node: Node) -> Started:
    return Started(api, backstage, node)


def test_answer(started: Started) -> None:
    answer = started.api.execution(*started.id)
    assert answer["JobId"] == started.job_id
    assert answer["ExecutorId"] == started.id[1]
    assert answer["CreateTime"] == float(started.id[1])
    assert isinstance(answer["CreateTime"], float)
    assert answer["Target"] == started.targets


def test_starting(started: Started) -> None:
    (result,) = started.results()
    assert result == {**started.targets[0], "Status": "STARTING"}


@pytest.mark.parametrize("status", ["CREATED", "RUNNING"])
def test_under_way(started: Started, status: str) -> None:
    (result,) = started.end({"Status": status, "ID": "e1", "StartTime": 1496287694.5})
    expected = {**started.targets[0], "Status": status, "ID": "e1"}
    assert {key: result[key] for key in expected} == expected
    assert not set(result) & {"E", "ExitCode", "Reason", "EndTime"}
    assert result["StartTime"] == 1496287694.5


@pytest.mark.parametrize("exit_code", [0, 1, 126, 255])
def test_finished(started: Started, exit_code: int) -> None:
    attributes = finished(started.targets[0], "输出\n".encode(), exit_code=exit_code)
    (result,) = started.end(attributes)
    assert set(result) >= ENGINE_KEYS
    expected = {**started.targets[0], **attributes["Inspect"], "Status": "FINISHED"}
    assert {key: result[key] for key in expected} == expected
    assert result["Output"] == "输出\n"
    assert result["OutputSize"] == 7
    assert result["StartTime"] == attributes["StartTime"]
    assert result["EndTime"] == attributes["EndTime"]
    assert not result.get("OutputTruncated")
    assert not result.get("OutputIncomplete")
    assert not set(result) & {"E", "Reason"}
    assert not set(result) & {"Execution", "Inspect", "ExpiresAt"}


def test_finished_without_output(started: Started) -> None:
    (result,) = started.end(finished(started.targets[0]))
    assert result["Output"] == ""
    assert not result.get("OutputTruncated")


def test_create_failed(started: Started) -> None:
    (result,) = started.end(
        {"Status": "CREATE_FAILED", "E": "没有这个容器", "Reason": "container_not_found"}
    )
    expected = {**started.targets[0], "Status": "CREATE_FAILED", "E": "没有这个容器"}
    assert {key: result[key] for key in expected} == expected
    assert result["Reason"] == "container_not_found"
    assert not set(result) & {"ID", "ExitCode"}


@pytest.mark.parametrize("output", [b"so far", b""])
def test_running_failed(started: Started, output: bytes) -> None:
    attributes: Json = {
        "Status": "RUNNING_FAILED",
        "ID": "e1",
        "E": "lost sight of it",
        "Reason": "lost",
        "OutputIncomplete": True,
        "OutputSize": len(output),
    }
    if output:
        attributes["Output"] = output
    (result,) = started.end(attributes)
    assert result["Status"] == "RUNNING_FAILED"
    assert result["E"] == "lost sight of it"
    assert result["Reason"] == "lost"
    assert result["OutputIncomplete"] is True
    assert result.get("Output", "") == output.decode()
    assert "ExitCode" not in result


def test_results_are_in_the_order_of_the_targets(
    api: Api, backstage: Backstage, node: Node
) -> None:
    started = Started(api, backstage, node, count=60)
    known = started.targets[1::2]
    attributes = [(one, finished(one, one["ContainerId"].encode())) for one in reversed(known)]
    backstage.put_results(started.id, attributes)
    results = started.results()
    assert [_target(result) for result in results] == started.targets
    statuses = [result["Status"] for result in results]
    assert statuses == ["STARTING", "FINISHED"] * 30
    for result in results[1::2]:
        assert result["Output"] == result["ContainerId"]


def _target(result: Json) -> Json:
    return {key: result[key] for key in ("ContainerId", "NodeId")}


@pytest.mark.parametrize(
    "output",
    [
        b"\xff\xfe",
        b"a\x00b\r\n\x1b[31m",
        "密码😀".encode()[:-1],
        bytes(range(256)),
        b'"\\\n' * 100,
        "\u2028\ufeff\ufffe".encode(),
        b"\xed\xa0\x80",
    ],
    ids=lambda value: repr(value[:12]),
)
def test_output_is_decoded_with_replacement(started: Started, output: bytes) -> None:
    (result,) = started.end(finished(started.targets[0], output))
    assert result["Output"] == output.decode("utf-8", "replace")
    assert result["OutputSize"] == len(output)


@pytest.mark.parametrize("more", [0, 1, 10_000_000_000])
def test_truncated_where_the_log_is_longer(started: Started, more: int) -> None:
    output = b"x" * 32 * 1024
    (result,) = started.end(finished(started.targets[0], output, size=len(output) + more))
    assert result["Output"] == output.decode()
    assert result.get("OutputTruncated", False) is (more > 0)
    assert result["OutputSize"] == len(output) + more


def test_end_of_output_may_begin_within_a_character(started: Started) -> None:
    output = "密码".encode()[1:]
    (result,) = started.end(finished(started.targets[0], output, size=6))
    assert result["Output"].lstrip("\ufffd") == "码"
    assert result["OutputTruncated"] is True


@pytest.mark.wide
@pytest.mark.parametrize(
    "unit",
    [b"\n\x00\"'", b"\x00", b"\\", b"\xff", "密".encode(), b"\x7f", b"x"],
    ids=lambda value: repr(value),
)
def test_many_outputs_stay_below_5_mb(
    api: Api, backstage: Backstage, node: Node, unit: bytes
) -> None:
    started = Started(api, backstage, node, count=1000)
    output = (unit * 4096)[:4096]
    attributes = [(one, finished(one, output)) for one in started.targets]
    backstage.put_results(started.id, attributes)
    answer = api.inspect(*started.id)
    assert len(answer.content) < MAX_BYTES
    results = ok(answer)["Result"]
    assert len(results) == 1000
    text = output.decode("utf-8", "replace")
    lengths = set()
    for result in results:
        assert text.endswith(result["Output"].lstrip("\ufffd"))
        assert result.get("OutputTruncated", False) is (len(result["Output"]) < len(text))
        assert result["OutputSize"] == 4096
        lengths.add(len(result["Output"]))
    assert max(lengths) - min(lengths) <= 8
    assert min(lengths) > 100
    if len(json.dumps(text)) > 6000:
        assert all(result["OutputTruncated"] for result in results)


@pytest.mark.wide
def test_long_outputs_of_some_do_not_shorten_the_short_ones(
    api: Api, backstage: Backstage, node: Node
) -> None:
    started = Started(api, backstage, node, count=400)
    outputs = [b"\x00" * 32_000 if index % 4 == 0 else b"short" for index in range(400)]
    backstage.put_results(
        started.id,
        [(one, finished(one, out)) for one, out in zip(started.targets, outputs, strict=True)],
    )
    answer = api.inspect(*started.id)
    assert len(answer.content) < MAX_BYTES
    results = ok(answer)["Result"]
    for index, result in enumerate(results):
        if index % 4:
            assert result["Output"] == "short"
            assert not result.get("OutputTruncated")
        else:
            assert result["OutputTruncated"] is True
            assert len(result["Output"]) > 1000


@pytest.mark.wide
def test_many_long_errors_stay_below_5_mb(api: Api, backstage: Backstage, node: Node) -> None:
    started = Started(api, backstage, node, count=1000)
    failed: Json = {"Status": "RUNNING_FAILED", "ID": "e", "E": "误" * 1000, "Reason": "lost"}
    attributes = [{**failed, "Output": b"\x00" * 4096, "OutputSize": 4096}] * 1000
    backstage.put_results(started.id, zip(started.targets, attributes, strict=True))
    answer = api.inspect(*started.id)
    assert len(answer.content) < MAX_BYTES
    assert {result["E"] for result in ok(answer)["Result"]} == {"误" * 1000}


def test_result_of_another_engine_api_is_handed_on(started: Started) -> None:
    """Whatever fields the engine's inspect has, the answer has."""
    inspect: dict[str, Any] = {**engine_inspect(started.targets[0]), "New": {"a": [1, None]}}
    (result,) = started.end({**finished(started.targets[0], b"x"), "Inspect": inspect})
    assert result["New"] == {"a": [1, None]}
