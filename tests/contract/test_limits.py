"""The rules of each field, at their edges."""

from typing import Any
from unicodedata import normalize

import pytest

from .client import Api, Json, fields, invalid, ok, refused, unique

GOOD: list[tuple[str, Any]] = [
    ("AppName", "x"),
    ("AppName", "应" * 128),
    ("Name", "x"),
    ("Name", "线" * 64),
    ("Name", "  " + "😀" * 64 + "  "),
    ("Name", "👩\u200d🚀 \u05d0\u200f"),
    ("AppName", " \t" + "x" * 128 + "\n"),
    ("AppName", "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}" * 128),
    ("ServiceName", " a  b "),
    ("Cmd", "线" * 4096),
    ("Cmd", "sh -c 'echo \"a b\"; exit 3'"),
    ("Cmd", "echo a\\ b"),
    ("Cmd", "echo a # b\n c"),
    ("Cmd", 'sh -c "ps | awk \x27{print \\$1}\x27"'),
    ("ServiceName", ""),
    ("ServiceName", "务" * 128),
    ("Privileged", False),
    ("User", ""),
    ("User", "root"),
    ("User", "0"),
    ("User", "1000:1000"),
    ("User", "root:root"),
    ("User", "www-data:www-data"),
    ("User", "_apt"),
    ("Env", []),
    ("Env", ["A="]),
    ("Env", ["A=b=c", "线=上 '\"\n"]),
    ("Env", ["A=b"] * 100),
    ("Env", ["A=" + "x" * (16 * 1024 - 2)]),
    ("Env", ["A=" + "x" * (8 * 1024 - 2)] * 2),
    ("LogBytes", 0),
    ("LogBytes", 1),
    ("LogBytes", 64 * 1024**3),
]


@pytest.mark.parametrize(("field", "value"), GOOD, ids=lambda value: repr(value)[:24])
def test_accepted(api: Api, field: str, value: Any) -> None:
    body = fields(**{field: value})
    if field == "AppName":
        # The name makes the job unique if the application does not.
        body["Name"] = fields()["AppName"]
    job = ok(api.create(body))
    expected = value
    if field in ("AppName", "Name"):
        expected = normalize("NFC", value.strip())
    assert job[field] == expected
    assert api.job(job["JobId"])[field] == expected
    assert ok(api.put(job["JobId"], body))[field] == expected
    api.delete(job["JobId"])


SECRETS = [
    [""],
    ["***"],
    [" a b ", "'", '"', "\n", "-x"],
    ["密码", "😀", "e\u0301"],
    ["x"] * 32,
    ["x" * 3072],
    ["密" * 1024],
]


@pytest.mark.parametrize("secrets", SECRETS, ids=lambda value: repr(value)[:24])
def test_accepted_secrets(api: Api, secrets: list[str]) -> None:
    job = api.new_job(SecretArgs=secrets)
    masks = ["*" * len(secret) for secret in secrets]
    assert job["SecretArgs"] == masks
    assert api.job(job["JobId"])["SecretArgs"] == masks


# Control characters, changes of direction, nothing to be seen.
SPOOFS = ["a\nb", "a\x1b[2Jb", "a\x00b", "a\u202eb", "a\u2066b", "\u200b", "\u3164", "\u0301"]
BAD: list[tuple[str, Any]] = [
    ("AppName", ""),
    ("AppName", "x" * 129),
    ("AppName", " \n\u00a0"),
    *((field, bad) for field in ("AppName", "Name", "ServiceName") for bad in SPOOFS),
    ("Name", ""),
    ("Name", " \t\n"),
    ("Name", "x" * 65),
    ("Name", " " + "线" * 65),
    ("Cmd", ""),
    ("Cmd", "   \t\n"),
    ("Cmd", "x" * 4097),
    ("Cmd", 'echo "a'),
    ("Cmd", "echo 'a"),
    ("Cmd", "echo a\\"),
    ("Cmd", "echo \x00"),
    ("ServiceName", "x" * 129),
    ("User", ":"),
    ("User", "root:"),
    ("User", ":root"),
    ("User", "a:b:c"),
    ("User", "a b"),
    ("User", " root"),
    ("User", "root\n"),
    ("User", "ro\x00ot"),
    ("User", "root;id"),
    ("Env", ["novalue"]),
    ("Env", ["=x"]),
    ("Env", [""]),
    ("Env", ["A=\x00"]),
    ("Env", ["A=b", None]),
    ("Env", ["A=b", 1]),
    ("Env", "A=b"),
    ("Env", {"A": "b"}),
    ("Env", ["A=b"] * 101),
    ("Env", ["A=" + "x" * (16 * 1024 - 1)]),
    ("Env", ["A=" + "应" * 5461]),
    ("Env", ["A=" + "x" * 200] * 99),
    ("SecretArgs", "secret"),
    ("SecretArgs", {"a": "b"}),
    ("SecretArgs", [1]),
    ("SecretArgs", [None]),
    ("SecretArgs", ["a\x00b"]),
    ("SecretArgs", ["x"] * 33),
    ("SecretArgs", ["x" * 3073]),
    ("SecretArgs", ["密" * 1025]),
    ("SecretArgs", ["x" * 1537] * 2),
    ("Privileged", "true"),
    ("Privileged", 1),
    ("Privileged", []),
    ("LogBytes", -1),
    ("LogBytes", 64 * 1024**3 + 1),
    ("LogBytes", 1.5),
    ("LogBytes", "1"),
    ("LogBytes", True),
]
NO_TEXT: list[Any] = [5, 1.5, True, [], ["x"], {}]
BAD += [
    (field, value)
    for field in ("AppName", "Name", "Cmd", "ServiceName", "User")
    for value in NO_TEXT
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: repr(value)[:24])
def test_refused(api: Api, field: str, value: Any) -> None:
    job = api.new_job()
    invalid(api.create(fields(**{field: value})), field)
    invalid(api.put(job["JobId"], fields(**{field: value})), field)
    assert api.job(job["JobId"]) == job


@pytest.mark.parametrize("app", [" ", "\t", "\x1c", "\u00a0", "\u202e", "x" * 3000])
def test_no_job_has_such_a_name(api: Api, app: str) -> None:
    assert ok(api.jobs(app)) == []
    assert ok(api.audit(AppName=app))["Entries"] == []


def test_a_name_has_one_spelling(api: Api) -> None:
    app = unique("é")
    decomposed = f" {normalize('NFD', app)} "
    job = ok(api.create(fields(AppName=decomposed, Name="é")))
    assert job["AppName"] == app
    for spelling in (app, decomposed):
        again = api.create(fields(AppName=spelling, Name=normalize("NFD", "é")))
        refused(again, 400, "jobs_name_duplicated_error", "é")
        assert [one["JobId"] for one in ok(api.jobs(spelling))] == [job["JobId"]]
        (entry,) = ok(api.audit(AppName=spelling))["Entries"]
        assert entry["JobId"] == job["JobId"]


def test_limit_of_secrets_counts_kept_ones_in_bytes(api: Api) -> None:
    job = api.new_job(SecretArgs=["密" * 1000])
    edit = {**job, "SecretArgs": ["*" * 1000, "x" * 100]}
    invalid(api.put(job["JobId"], edit), "SecretArgs")
    edit["SecretArgs"][1] = "x" * 72
    ok(api.put(job["JobId"], edit))


@pytest.mark.wide
def test_full_limits_together_can_be_started(api: Api) -> None:
    job = api.new_job(
        AppName="😀" * 96 + fields()["AppName"][-32:],
        ServiceName="😀" * 128,
        Name="😀" * 64,
        Cmd="😀" * 4096,
        Env=["A=" + "\n" * 160] * 100,
        SecretArgs=["x" * 96] * 32,
    )
    nodes = [f"{number:080}" for number in range(1000)]
    targets = [{"ContainerId": f"{node:0>128}", "NodeId": node} for node in nodes]
    executor_id = api.new_execution(job["JobId"], targets)
    assert len(api.execution(job["JobId"], executor_id)["Result"]) == 1000


def test_every_start_body_that_is_wrong(api: Api) -> None:
    job = api.new_job()
    path = f"/jobs/{job['JobId']}/start"
    good: Json = {"ContainerId": "c", "NodeId": "n"}
    wrong: list[Any] = [
        None,
        [],
        {},
        "c",
        5,
        good,
        [None],
        ["c"],
        [[good]],
        [{}],
        [{"ContainerId": "c"}],
        [{"NodeId": "n"}],
        [{"ContainerId": None, "NodeId": "n"}],
        [{"ContainerId": "c", "NodeId": None}],
        [{"ContainerId": 1, "NodeId": "n"}],
        [{"ContainerId": "c", "NodeId": ["n"]}],
        [{"ContainerId": "", "NodeId": "n"}],
        [{"ContainerId": "c", "NodeId": ""}],
        [{"ContainerId": "c", "NodeId": "n" * 81}],
        [{"ContainerId": "c", "NodeId": "节点"}],
        [{"ContainerId": "c", "NodeId": "\\" * 76}],
        [{"ContainerId": "c", "NodeId": '"' * 76}],
        [{"ContainerId": "c", "NodeId": "n\n"}],
        [{"ContainerId": "c\n", "NodeId": "n"}],
        [good, good],
        [good, {"ContainerId": "c", "NodeId": "other"}],
    ]
    for value in wrong:
        invalid(api.send_json("POST", path, {"Target": value}), "Target")
    invalid(api.send_json("POST", path, {}), "Target")
    assert api.job(job["JobId"])["Executors"] == []


@pytest.mark.parametrize("field", ["ContainerId", "NodeId"])
@pytest.mark.parametrize(
    "value",
    ["x" * 3000, "x" * 300_000, "a/b/../c", 'a"b\r\nX-Evil: 1', "a\x00b", "容器", ".."],
    ids=lambda value: repr(value[:12]),
)
def test_odd_ids_of_targets_are_refused_or_work(api: Api, field: str, value: str) -> None:
    job = api.new_job()
    one = {"ContainerId": "c", "NodeId": "n", field: value}
    answer = api.start(job["JobId"], [one])
    if answer.status_code == 400:
        refused(answer, 400, "invalid_request")
        assert api.job(job["JobId"])["Executors"] == []
        return
    executor = ok(answer)["Executors"][-1]
    assert api.execution(job["JobId"], executor)["Target"] == [one]
    log = api.log(job["JobId"], executor, one["ContainerId"])
    assert log.status_code == 200
    assert "X-Evil" not in log.headers
