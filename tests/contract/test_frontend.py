"""A frontend as it was written against the source, used as its people use it."""

from typing import Any

from .backstage import Backstage, Node, finished
from .client import Api, Json, ok, target, unique


class Frontend:
    """Sends nulls, empty texts, misspelt keys and whole objects; knows only the source."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def jobs(self, app: str) -> list[Json]:
        return list(ok(self.api.jobs(app)))

    def create(self, app: str, name: str, command: str) -> Json:
        form: dict[str, Any] = {
            "AppName": app,
            "ServiceName": "",
            "Name": name,
            "Cmd": command,
            "Privileged": None,
            "User": None,
            "Env": None,
            "secretArgs": [],
            "SecretArgs": None,
            "JobId": None,
            "Executors": None,
        }
        return dict(ok(self.api.create(form)))

    def save(self, job: Json, **changes: Any) -> Json:
        """Sends the whole object back, masks included, with what its form changed."""
        return dict(ok(self.api.put(job["JobId"], {**job, "secretArgs": [], **changes})))

    def start(self, job: Json, targets: list[Json]) -> str:
        return str(ok(self.api.start(job["JobId"], targets))["Executors"][-1])

    def verdicts(self, job: Json, executor: str) -> list[tuple[str, str]]:
        """What its page shows of each target, by the source's own rule."""
        answer = ok(self.api.inspect(job["JobId"], executor))
        assert len(answer["Target"]) == len(answer["Result"])
        return [_verdict(result) for result in answer["Result"]]


def _verdict(result: Json) -> tuple[str, str]:
    if result["Status"] in ("STARTING", "CREATED"):
        return "执行中", ""
    if result["Status"] in ("CREATE_FAILED", "RUNNING_FAILED"):
        return "失败", result["E"]
    if result["Status"] == "RUNNING":
        return "执行中", ""
    assert result["Status"] == "FINISHED"
    return ("成功" if result["ExitCode"] == 0 else "失败"), result["Output"]


def test_a_day_at_the_frontend(api: Api, backstage: Backstage, node: Node) -> None:
    frontend = Frontend(api)
    app = unique()
    job = frontend.create(app, "上线", "ps axu")
    job = frontend.save(job, SecretArgs=["hunter2", "密码"])
    assert " ".join(job["SecretArgs"]) == "******* **"
    job = frontend.save(job, Name="上线 2", User=None, ServiceName="")
    assert job["SecretArgs"] == ["*******", "**"]
    assert frontend.jobs(app) == [job]

    targets = [target(node.node_id) for _ in range(5)] + [target(unique("node"))]
    executor = frontend.start(job, targets)
    assert backstage.secrets(job["JobId"], executor) == ["hunter2", "密码"]
    verdicts = frontend.verdicts(job, executor)
    assert verdicts[:5] == [("执行中", "")] * 5
    assert verdicts[5][0] == "失败"
    assert verdicts[5][1]

    states: list[Json] = [
        finished(targets[0], "好\n".encode()),
        finished(targets[1], b"no\n", exit_code=2),
        {"Status": "CREATED", "ID": "e1"},
        {"Status": "RUNNING", "ID": "e2"},
        {"Status": "RUNNING_FAILED", "ID": "e3", "E": "lost", "Reason": "lost"},
    ]
    backstage.put_results((job["JobId"], executor), zip(targets[:5], states, strict=True))
    assert frontend.verdicts(job, executor)[:5] == [
        ("成功", "好\n"),
        ("失败", "no\n"),
        ("执行中", ""),
        ("执行中", ""),
        ("失败", "lost"),
    ]

    assert frontend.jobs(app)[0]["Executors"] == [executor]
    assert api.delete(job["JobId"]).status_code == 202
    assert frontend.jobs(app) == []
    frontend.create(app, "上线 2", "ps axu")
