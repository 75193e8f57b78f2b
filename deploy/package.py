"""Packages app.py for Lambda: runs `chalice package`, completes the template, makes the archive small."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalice.package import TemplateDeepMerger, YAMLTemplateSerializer

from deploy.cloudformation import DeployError
from deploy.project import LOCAL, ROOT, locked
from deploy.refusals import add_refusals

_TEMPLATES = [ROOT / ".chalice" / name for name in ("functions.yaml", "resources.yaml")]
# botocore describes every service of AWS in 20 MB; these are ours (STS: to assume a role).
_SERVICES = ("dynamodb", "kms", "s3", "sqs", "sts")
_DROPPED = re.compile(
    rf"(.*/)?__pycache__/.*|bin/.*|boto3/examples/.*|botocore/data/(?!({'|'.join(_SERVICES)})/)[^/]+/.*"
)
# Lambda's Python: the newest with which the tests run the functions. Another Python may deploy them.
RUNTIME = "3.13"
_REQUIREMENTS = ROOT / "requirements.txt"
# The earliest date that an archive can have. With it, the same content makes the same archive.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """What is deployed: the template, and the archive of the code that its functions share."""

    template: dict[str, Any]
    code: Path


def package(prefix: str, folder: Path, region: str, python: str = RUNTIME) -> Package:
    """Builds the package in `folder`, for that Python. Raises DeployError with chalice's message."""
    project = _project(folder / "project", _dependencies(python))
    merge = folder / "merge.json"
    merge.write_text(json.dumps(completion()), encoding="utf-8")
    chalice = [str(Path(sys.executable).with_name("chalice")), "--project-dir", str(project)]
    options = ["--stage", prefix, "--merge-template", str(merge.absolute())]
    _run("chalice package", [*chalice, "package", *options, str(folder.absolute())], region)
    code = folder / "code.zip"
    _shrink(folder / "deployment.zip", code)
    path = folder / "sam.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    add_refusals(template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"])
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # Chalice takes the Python that it runs on for Lambda's.
            resource["Properties"]["Runtime"] = f"python{python}"
    path.write_text(json.dumps(template, indent=2), encoding="utf-8")
    return Package(template, code)


def _project(folder: Path, dependencies: Path) -> Path:
    """A folder for chalice: without requirements, which it would install for its own Python."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("app.py", "chalicelib"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "vendor").symlink_to(dependencies)
    (folder / ".chalice").mkdir()
    shutil.copy(ROOT / ".chalice" / "config.json", folder / ".chalice")
    return folder


def _dependencies(python: str) -> Path:
    """What Lambda carries, installed for that Python on Amazon Linux; made again if the pins change."""
    pins = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    folder = LOCAL / "package" / f"dependencies-{python}-{pins}"
    with locked(LOCAL / "package.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=LOCAL) as unfinished:
                target = Path(unfinished, "site-packages")
                _install(python, target)
                folder.parent.mkdir(parents=True, exist_ok=True)
                # It is there as a whole or not at all.
                target.rename(folder)
    return folder


def _install(python: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
    pins = ["--require-hashes", "-r", str(_REQUIREMENTS), "--target", str(target)]
    wheels = ["--only-binary", ":all:", "--platform", "manylinux2014_x86_64"]
    _run(
        "pip install", [*pip, *pins, *wheels, "--implementation", "cp", "--python-version", python]
    )


def _run(what: str, command: list[str], region: str = "") -> None:
    environment = {**os.environ, "AWS_DEFAULT_REGION": region} if region else None
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DeployError(f"{what}: {done.stdout}{done.stderr}")


def completion() -> dict[str, Any]:
    """What our templates add to the one that chalice makes."""
    merged: dict[str, Any] = {}
    for path in _TEMPLATES:
        template = YAMLTemplateSerializer().load_template(path.read_text(encoding="utf-8"))
        merged = TemplateDeepMerger().merge(merged, template)
    return merged


def _shrink(source: Path, target: Path) -> None:
    with (
        zipfile.ZipFile(source) as whole,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as small,
    ):
        for name in sorted(whole.namelist()):
            if not _DROPPED.fullmatch(name):
                # Lambda's user is not the one that packs.
                info = zipfile.ZipInfo(name, _NO_DATE)
                info.external_attr = 0o644 << 16
                small.writestr(info, whole.read(name), zipfile.ZIP_DEFLATED)
