"""A new field of a job is a change in three files of the product, and no step is forgotten unseen.

The field is added to a copy of the tree, in which tests run.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "app.py",
    "pyproject.toml",
    ".chalice/resources.yaml",
    "chalicelib",
    "deploy",
    "dev",
    "docs/api.md",
    "docs/contract.md",
    "tests/conftest.py",
    "tests/support",
    "tests/unit/__init__.py",
    "tests/unit/callers.py",
    "tests/unit/conftest.py",
    "tests/unit/test_job_fields.py",
    "tests/unit/test_openapi.py",
)
# File, the line that the step comes after, what it adds.
STEPS = {
    "attribute": (
        "chalicelib/store/models.py",
        "    User = _OptionalText()\n",
        "    Note = _OptionalText()\n",
    ),
    "request": (
        "chalicelib/schemas/jobs.py",
        "    Privileged: bool = False\n",
        "    Note: Annotated[str, Meta(max_length=500)] | UnsetType = UNSET\n",
    ),
    "answer": (
        "chalicelib/schemas/jobs.py",
        "    Privileged: bool\n",
        "    Note: str\n",
    ),
    "example": (
        "chalicelib/openapi/examples.py",
        '    "User": "root:root",\n',
        '    "Note": "See the runbook",\n',
    ),
    "tests": (
        "tests/support/job_fields.py",
        "FIELDS = {\n",
        '    "Note": Field("a", "b", default="", is_addition=True),\n',
    ),
    "contract": (
        "docs/contract.md",
        "| Privileged | optional, default false |\n",
        "| Note (addition) | optional, at most 500 |\n",
    ),
}
DOCS = "make docs"
ALL = {*STEPS, DOCS}
# What fails if a step is forgotten.
MISSED_BY = {
    "attribute": "test_all_but_the_secrets_are_stored_under_their_names",
    "request": "test_requests_have_these_fields",
    "answer": "test_answers_have_these_fields",
    "tests": "test_requests_have_these_fields",
    "contract": "test_the_contract_has_each_field[Note]",
    "example": "test_examples_keep_to_their_schemas[JobAnswer]",
    DOCS: "run make docs",
}
# Steps that are forgotten together, since each is missed by a test of its own.
FORGOTTEN = ({"attribute", "contract", "example", DOCS}, {"request", "answer"}, {"tests"})
# The tests of the new field, and those of all fields at once.
WITH_NOTE = "Note or these_fields or under_their or an_execution or openapi"
# Those tests need no AWS, so neither moto, which takes long to import.
WITHOUT_AWS = ("--noconftest", "-k", "these_fields or under_their or contract or openapi")


def copy_with(copy: Path, steps: set[str]) -> Path:
    """A copy of the tree in which these steps are done."""
    for name in COPIED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        copying = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copying(ROOT / name, copy / name)
    for name, after, added in (STEPS[step] for step in steps - {DOCS}):
        text = (copy / name).read_text()
        assert text.count(after) == 1, f"{name} does not have once: {after}"
        (copy / name).write_text(text.replace(after, after + added))
    if DOCS in steps:
        subprocess.run([sys.executable, "-m", "dev.api_page"], cwd=copy, check=True)
    return copy


def start_tests(copy: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests/unit"],
        cwd=copy,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_three_files_of_the_product_are_enough(tmp_path: Path) -> None:
    changed = {name for name, *_ in STEPS.values() if name.startswith("chalicelib/")}
    assert len(changed) == 3
    tests = start_tests(copy_with(tmp_path, ALL), "-k", WITH_NOTE)
    output, _ = tests.communicate()
    assert tests.returncode == 0, output


def test_no_step_is_forgotten_unseen(tmp_path: Path) -> None:
    assert set().union(*FORGOTTEN) == MISSED_BY.keys() == ALL
    runs = [
        start_tests(copy_with(tmp_path / str(number), ALL - forgotten - {DOCS}), *WITHOUT_AWS)
        for number, forgotten in enumerate(FORGOTTEN)
    ]
    for forgotten, tests in zip(FORGOTTEN, runs, strict=True):
        output, _ = tests.communicate()
        for step in forgotten:
            assert MISSED_BY[step] in output, output
