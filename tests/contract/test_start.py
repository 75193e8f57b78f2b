"""Starting: what is accepted, what reaches the nodes, what stays as it was."""

import time
from collections.abc import Callable
from decimal import Decimal
from uuid import uuid4

import pytest

from tests.support.waiting import eventually

from .backstage import DAY_SECONDS, Backstage, Node
from .client import Api, Json, at_once, container, fields, invalid, ok, target, unique


def _message(job: Json, executor_id: str, one: Json, part: int = 0) -> Json:
    names = {"JobId": job["JobId"], "AppName": job["AppName"]}
    return {**names, "ExecutorId": executor_id, "ContainerId": one["ContainerId"], "Part": part}


def _sorted(messages: list[Json]) -> list[Json]:
    return sorted(messages, key=lambda message: message["ContainerId"])


def test_answer_is_the_job_with_the_new_execution(api: Api, node: Node) -> None:
    job = api.new_job()
    first = ok(api.start(job["JobId"], [target(node.node_id)]))
    assert {**first, "Executors": []} == job
    assert len(first["Executors"]) == 1
    second = ok(api.start(job["JobId"], [target(node.node_id)]))
    assert second["Executors"][:-1] == first["Executors"]
    assert Decimal(second["Executors"][-1]) > Decimal(first["Executors"][-1])
    assert api.job(job["JobId"]) == second


@pytest.mark.parametrize("count", [1, 2, 10, 11, pytest.param(1000, marks=pytest.mark.wide)])
def test_one_message_per_target(api: Api, backstage: Backstage, node: Node, count: int) -> None:
    job = api.new_job()
    targets = [target(node.node_id) for _ in range(count)]
    executor = api.new_execution(job["JobId"], targets)
    parts = backstage.parts((job["JobId"], executor))
    expected = [_message(job, executor, one, parts[one["ContainerId"]]) for one in targets]
    assert _sorted(backstage.messages(node, count)) == _sorted(expected)
    assert api.execution(job["JobId"], executor)["Target"] == targets


@pytest.mark.wide
def test_a_thousand_targets_over_several_nodes(
    api: Api, backstage: Backstage, announce: Callable[[], Node]
) -> None:
    nodes = [announce() for _ in range(7)]
    job = api.new_job()
    targets = [target(nodes[index % 7].node_id) for index in range(1000)]
    executor = api.new_execution(job["JobId"], targets)
    parts = backstage.parts((job["JobId"], executor))
    for one in nodes:
        expected = [
            _message(job, executor, each, parts[each["ContainerId"]])
            for each in targets
            if each["NodeId"] == one.node_id
        ]
        assert _sorted(backstage.messages(one, len(expected))) == _sorted(expected)


def test_too_many_targets(api: Api, node: Node) -> None:
    job = api.new_job()
    targets = [target(node.node_id) for _ in range(1001)]
    invalid(api.start(job["JobId"], targets), "Target")
    assert api.job(job["JobId"]) == job


def test_no_container_twice(api: Api, backstage: Backstage, node: Node) -> None:
    job = api.new_job()
    one = target(node.node_id)
    for again in (one, {**one, "NodeId": unique("node")}):
        invalid(api.start(job["JobId"], [one, target(node.node_id), again]), "Target")
    assert api.job(job["JobId"]) == job
    assert backstage.messages(node, 0) == []


def test_one_container_in_two_executions(api: Api, backstage: Backstage, node: Node) -> None:
    job = api.new_job()
    one = target(node.node_id)
    executors = [api.new_execution(job["JobId"], [one]) for _ in range(2)]
    arrived = [message["ExecutorId"] for message in backstage.messages(node, 2)]
    assert sorted(arrived) == executors


def test_unknown_node_fails_at_once(api: Api, backstage: Backstage, node: Node) -> None:
    """And holds up no target on another node."""
    job = api.new_job()
    known, unknown = target(node.node_id), target(unique("node"))
    executor = api.new_execution(job["JobId"], [unknown, known])
    failed, waiting = api.execution(job["JobId"], executor)["Result"]
    assert failed["Status"] == "CREATE_FAILED"
    assert failed["Reason"] == "node_unknown"
    assert failed["E"]
    assert waiting == {**known, "Status": "STARTING"}
    assert backstage.messages(node, 1) == [_message(job, executor, known)]


def test_unknown_node_stays_failed_when_it_is_announced_later(
    api: Api, backstage: Backstage, announce: Callable[..., Node]
) -> None:
    job = api.new_job()
    late = target(uuid4().hex[:25])
    executor = api.new_execution(job["JobId"], [late])
    before = api.execution(job["JobId"], executor)
    assert before["Result"][0]["Reason"] == "node_unknown"
    node = announce(late["NodeId"])
    assert api.execution(job["JobId"], executor) == before
    again = api.new_execution(job["JobId"], [late])
    assert api.execution(job["JobId"], again)["Result"][0]["Status"] == "STARTING"
    assert backstage.messages(node, 1) == [_message(job, again, late)]


def test_a_worker_that_is_too_old_gets_nothing(
    api: Api, backstage: Backstage, node: Node, announce: Callable[..., Node]
) -> None:
    """Until it is updated. A worker that is ahead of the API gets all that the API can send."""
    job = api.new_job()
    old, ahead = announce(version=0), announce(version=2)
    targets = [target(one.node_id) for one in (old, ahead, node)]
    executor = api.new_execution(job["JobId"], targets)
    failed, *others = api.execution(job["JobId"], executor)["Result"]
    assert (failed["Status"], failed["Reason"]) == ("CREATE_FAILED", "worker_outdated")
    assert f"{old.node_id} has version 0" in failed["E"]
    assert [result["Status"] for result in others] == ["STARTING", "STARTING"]
    assert backstage.messages(ahead, 1) == [_message(job, executor, targets[1])]
    backstage.announce(old.node_id)
    again = api.new_execution(job["JobId"], targets[:1])
    assert backstage.messages(old, 1) == [_message(job, again, targets[0])]


# 1,000 different nodes are more keys than DynamoDB answers at once.
@pytest.mark.wide
def test_a_thousand_unknown_nodes(api: Api) -> None:
    job = api.new_job()
    targets = [target(unique("node")) for _ in range(1000)]
    executor = api.new_execution(job["JobId"], targets)
    results = api.execution(job["JobId"], executor)["Result"]
    assert [result["ContainerId"] for result in results] == [one["ContainerId"] for one in targets]
    assert {result["Reason"] for result in results} == {"node_unknown"}


def test_concurrent_starts_of_one_job(api: Api, node: Node) -> None:
    job = api.new_job()
    targets = [target(node.node_id) for _ in range(200)]
    answers = [
        ok(answer) for answer in at_once(lambda one: api.start(job["JobId"], [one]), targets)
    ]
    own = [answer["Executors"][-1] for answer in answers]
    assert len(set(own)) == 200
    for answer in answers:
        assert answer["Executors"] == sorted(answer["Executors"], key=Decimal)
    final = api.job(job["JobId"])["Executors"]
    assert final == sorted(own, key=Decimal)[-100:]
    inspected = at_once(lambda executor: api.execution(job["JobId"], executor), own)
    assert [answer["Target"] for answer in inspected] == [[one] for one in targets]


def test_starts_of_many_jobs_do_not_mix(api: Api, node: Node) -> None:
    jobs = [api.new_job() for _ in range(16)]
    executors = at_once(lambda job: api.new_execution(job["JobId"], [target(node.node_id)]), jobs)
    for job, executor in zip(jobs, executors, strict=True):
        assert api.job(job["JobId"])["Executors"] == [executor]


def test_snapshot_outlives_edit_and_deletion(api: Api, backstage: Backstage, node: Node) -> None:
    body = fields()
    job = ok(api.create(body))
    targets = [target(node.node_id)]
    executor = api.new_execution(job["JobId"], targets)
    edit = fields(Name="new", Cmd="rm -rf /", User="", Env=[], Privileged=False, SecretArgs=["z"])
    ok(api.put(job["JobId"], edit))
    api.delete(job["JobId"])
    snapshot = backstage.snapshot(job["JobId"], executor)
    kept = {key: value for key, value in body.items() if key != "SecretArgs"}
    assert {key: snapshot[key] for key in kept} == kept
    assert backstage.secrets(job["JobId"], executor) == ["x", "yy"]
    assert api.execution(job["JobId"], executor)["Target"] == targets


def test_snapshots_between_edits_are_whole(api: Api, backstage: Backstage, node: Node) -> None:
    """A start sees a job before an edit or after it, never half of it."""
    job = api.new_job(Cmd="0", Env=["N=0"], SecretArgs=["0"])

    def act(number: int) -> str | None:
        if number % 3:
            return api.new_execution(job["JobId"], [target(node.node_id)])
        edit = {"Cmd": f"{number}", "Env": [f"N={number}"], "SecretArgs": [f"{number}"]}
        ok(api.put(job["JobId"], {**job, **edit}))
        return None

    executors = [one for one in at_once(act, range(48), threads=12) if one]
    assert api.job(job["JobId"])["Executors"] == sorted(executors, key=Decimal)
    for executor in executors:
        snapshot = backstage.snapshot(job["JobId"], executor)
        assert snapshot["Env"] == [f"N={snapshot['Cmd']}"]
        assert backstage.secrets(job["JobId"], executor) == [snapshot["Cmd"]]


def test_old_executions_drop_out_of_the_list(api: Api, backstage: Backstage, node: Node) -> None:
    """Those older than the retention period; in every answer, whatever is stored still."""
    job = api.new_job()
    now = time.time()
    recent = f"{now - (backstage.retention_days - 1) * DAY_SECONDS:.6f}"
    backstage.set_executors(
        job["JobId"], [f"{now - (backstage.retention_days + 1) * DAY_SECONDS:.6f}", recent]
    )
    assert api.job(job["JobId"])["Executors"] == [recent]
    assert ok(api.put(job["JobId"], job))["Executors"] == [recent]
    started = ok(api.start(job["JobId"], [target(node.node_id)]))
    assert started["Executors"][:-1] == [recent]
    assert api.job(job["JobId"]) == started
    eventually(lambda: _listed_as(api, started))


def _listed_as(api: Api, job: Json) -> None:
    assert ok(api.jobs(job["AppName"])) == [job]


def test_start_is_the_last_though_clocks_differ(api: Api, backstage: Backstage, node: Node) -> None:
    job = api.new_job()
    ahead = f"{time.time() + 60:.6f}"
    backstage.set_executors(job["JobId"], [ahead])
    answer = ok(api.start(job["JobId"], [target(node.node_id)]))
    assert answer["Executors"][0] == ahead
    assert Decimal(answer["Executors"][-1]) > Decimal(ahead)


def test_create_time_is_the_executor_id(api: Api, node: Node) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(node.node_id)])
    answer = api.inspect(job["JobId"], executor)
    assert f'"CreateTime":{executor}'.rstrip("0").encode() in answer.content.replace(b" ", b"")
    assert ok(answer)["CreateTime"] == float(executor)


def test_list_shows_the_start(api: Api, node: Node) -> None:
    job = api.new_job()
    executor = api.new_execution(job["JobId"], [target(node.node_id)])

    def check() -> None:
        assert ok(api.jobs(job["AppName"]))[0]["Executors"] == [executor]

    eventually(check)


def test_container_ids_need_not_be_long(api: Api, backstage: Backstage, node: Node) -> None:
    job = api.new_job()
    one = {"ContainerId": container()[:12], "NodeId": node.node_id}
    executor = api.new_execution(job["JobId"], [one])
    assert backstage.messages(node, 1) == [_message(job, executor, one)]
