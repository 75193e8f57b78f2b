"""What the checklists ask for is there: each setting, field, route, table and so on is on its page."""

import re

import pytest
from prometheus_client import REGISTRY

import chalicelib.config
import worker.config
import worker.metrics
from chalicelib.domain.errors import AppjobsError
from chalicelib.domain.states import Status
from chalicelib.openapi.document import OPERATIONS
from chalicelib.schemas.jobs import JobRequest
from chalicelib.services.audit import Action
from deploy.package import completion
from deploy.project import ROOT


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def first_cells(text: str) -> set[str]:
    """What the first cells of a page's tables name."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"[\w.]+", cell)}


class Asked(dict[str, str]):
    """An environment without variables, which notes those that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:
        self.names.add(name)
        return default


def test_each_setting_is_in_the_tables_of_the_configuration() -> None:
    asked = Asked()
    chalicelib.config.load(asked)
    worker.config.load(asked)
    assert "RETENTION_DAYS" in asked.names
    assert asked.names - first_cells(page("configuration.md")) == set()


def test_the_functions_get_each_shared_setting() -> None:
    asked = Asked()
    chalicelib.config.load(asked)
    function = completion()["Globals"]["Function"]
    assert set(function["Environment"]["Variables"]) == asked.names


def test_each_parameter_of_a_deployment_is_explained() -> None:
    parameters = set(completion()["Parameters"])
    assert "RetentionDays" in parameters
    # `make deploy` fills in this one by itself.
    assert parameters - {"Prefix"} - first_cells(page("deployment.md")) == set()


def test_each_table_is_in_the_design() -> None:
    resources = completion()["Resources"].values()
    tables = {
        resource["Properties"]["TableName"]["Fn::Sub"].removeprefix("${Prefix}-")
        for resource in resources
        if resource.get("Type") == "AWS::DynamoDB::Table"
    }
    assert "jobs" in tables
    assert tables - first_cells(page("design.md")) == set()


def test_each_field_of_a_job_is_explained() -> None:
    assert set(JobRequest.__struct_fields__) - first_cells(page("api-guide.md")) == set()


@pytest.mark.parametrize("name", ["contract.md", "api-guide.md"])
def test_each_route_is_in_the_table_of(name: str) -> None:
    given = {"job_id": "JobId", "executor_id": "ExecutorId"}
    routes = {
        f"{one.method} {re.sub('{(.+?)}', lambda it: f'{{{given[it[1]]}}}', one.path)}"
        for one in OPERATIONS
    }
    named = set(re.findall(r"^\| `([A-Z]+ [^`?]+)", page(name), re.MULTILINE))
    assert named == routes


def test_each_id_of_an_error_is_in_the_contract() -> None:
    ids = {error.id for error in [AppjobsError, *AppjobsError.__subclasses__()]}
    assert ids - set(re.findall(r"`(\w+)`", page("contract.md"))) == set()


@pytest.mark.parametrize("name", ["contract.md", "results.md"])
def test_each_status_is_explained_in(name: str) -> None:
    assert set(Status) - first_cells(page(name)) == set()


def test_each_action_of_the_audit_is_named() -> None:
    named = set(re.findall(r"`([a-z.]+)`", page("access.md")))
    assert set(Action) - named == set()


def test_each_metric_of_the_worker_is_explained() -> None:
    ours = {one.name for one in REGISTRY.collect() if one.name.startswith("appjobs_")}
    assert worker.metrics.FINISHED.describe()[0].name in ours
    named = {name.removesuffix("_total") for name in first_cells(page("operations.md"))}
    assert ours - named == set()


def test_the_map_for_contributors_names_each_module() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text.partition("## Where")[2].partition("\n## ")[0]))
    # The rooms of use cases and resources have one module for each, and the map says so.
    told = {ROOT / "chalicelib" / "services", ROOT / "chalicelib" / "routes"}
    modules = [
        path for room in ("chalicelib", "worker", "deploy") for path in (ROOT / room).rglob("*.py")
    ]
    assert modules
    missing = [
        str(path.relative_to(ROOT))
        for path in modules
        if path.parent not in told and path.stem not in {*named, "__init__"}
    ]
    assert missing == []


def test_the_checklists_name_tests_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lists = text.partition("## Checklists")[2].partition("\n## ")[0]
    file, found, missing = "", 0, []
    for named, words in re.findall(r'(test_\w+\.py)|"([a-z ]+)"', " ".join(lists.split())):
        file = named or file
        tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        name = f"def test_{words.replace(' ', '_')}"
        found += not named
        if words and not any(name in one for one in tests):
            missing.append(f"{file}: {words}")
    assert found > 20
    assert missing == []
