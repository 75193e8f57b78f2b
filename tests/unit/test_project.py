"""What a public project has: CI, hooks, a changelog, and links that lead somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pre_commit.clientlib import load_config

from deploy.project import ROOT
from dev import picture

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PAGES = sorted(
    path for folder in (ROOT, ROOT / "docs", ROOT / ".github") for path in folder.glob("*.md")
)
CODE = re.compile(r"^( {4,}|```).*|`[^`]*`", re.MULTILINE)
LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|\b(?:src|srcset)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FILE = re.compile(r"`((?!\.local/)(?:[\w.-]+/)+[\w.-]+\.[a-z]+)`")
RELEASE = re.compile(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def steps() -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_the_workflow_runs_what_ci_runs_anywhere() -> None:
    assert ".ci/run" in [step.get("run") for step in steps()]


def test_the_workflow_pins_each_action_to_a_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_each_hook_runs_the_pinned_tool_of_the_environment() -> None:
    config = load_config(str(ROOT / ".pre-commit-config.yaml"))
    hooks = [(repo["repo"], hook) for repo in config["repos"] for hook in repo["hooks"]]
    assert hooks
    for repo, hook in hooks:
        assert (repo, hook["language"]) in {("local", "system"), ("local", "unsupported")}
        assert re.search(r"(^|\s)\.venv/bin/", hook["entry"]), hook["entry"]


def test_the_hooks_run_what_make_check_runs() -> None:
    checks = re.search(r"^CHECKS := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert checks
    tools = re.findall(r'"([^."]+?)(?: --check)?(?: \.)?"', checks[1])
    assert len(tools) == 4
    config = load_config(str(ROOT / ".pre-commit-config.yaml"))
    entries = " ".join(hook["entry"] for repo in config["repos"] for hook in repo["hooks"])
    assert [tool for tool in tools if f".venv/bin/{tool}" not in entries] == []


def test_releases_in_the_changelog_are_newest_first_and_dated() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = [tuple(map(int, found[:3])) for found in RELEASE.findall(text)]
    dates = [found[3] for found in RELEASE.findall(text)]
    assert text.count("\n## ") == len(releases) + 1, "a heading is not a release"
    assert "\n## [Unreleased]\n" in text
    assert releases == sorted(set(releases), reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert {line[4:] for line in text.splitlines() if line.startswith("### ")} <= KINDS


def test_the_picture_is_drawn_from_its_source() -> None:
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.render(), "run make docs"


def test_the_first_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in HEADING.findall(page.read_text(encoding="utf-8")):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        repeated = sum(
            one == slug or re.fullmatch(rf"{slug}-\d+", one) is not None for one in found
        )
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found


def links(page: Path) -> Iterator[str]:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target, image in LINK.findall(text):
        yield target or image


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(FILE.findall(page.read_text(encoding="utf-8")))
    folders = [ROOT, page.parent, ROOT / "chalicelib", ROOT / "worker"]
    assert [name for name in named if not any((one / name).exists() for one in folders)] == []


def test_names_of_tests_are_short_enough_to_find() -> None:
    names = {
        node.name
        for file in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert len(names) > 500
    assert sorted(name for name in names if len(name) > 70) == []
