"""Packages app.py for Lambda: `chalice package`, the template completed and the archive made small."""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalice.package import TemplateDeepMerger, YAMLTemplateSerializer

from dev.cloudformation import DeployError
from dev.refusals import add_refusals
from dev.stack import ROOT

_TEMPLATES = [ROOT / ".chalice" / name for name in ("functions.yaml", "resources.yaml")]
# botocore describes every service of AWS in 20 MB; these are ours (STS: to assume a role).
_SERVICES = ("dynamodb", "kms", "s3", "sqs", "sts")
_DROPPED = re.compile(
    rf"(.*/)?__pycache__/.*|boto3/examples/.*|botocore/data/(?!({'|'.join(_SERVICES)})/)[^/]+/.*"
)
# Archives have no dates before; the same content then makes the same archive.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """What is deployed: the template, and the archive of the code that its functions share."""

    template: dict[str, Any]
    code: Path


def package(prefix: str, folder: Path, region: str) -> Package:
    """Builds the package in `folder`. Raises DeployError with what chalice says."""
    folder.mkdir(parents=True, exist_ok=True)
    merge = folder / "merge.json"
    merge.write_text(json.dumps(completion()), encoding="utf-8")
    chalice = str(Path(sys.executable).with_name("chalice"))
    done = subprocess.run(
        [chalice, "package", "--stage", prefix, "--merge-template", str(merge), str(folder)],
        cwd=ROOT,
        env={**os.environ, "AWS_DEFAULT_REGION": region},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DeployError(f"chalice package: {done.stdout}{done.stderr}")
    code = folder / "code.zip"
    _shrink(folder / "deployment.zip", code)
    path = folder / "sam.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    add_refusals(template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"])
    path.write_text(json.dumps(template, indent=2), encoding="utf-8")
    return Package(template, code)


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
                # Lambda's user is another than the one who packs.
                info = zipfile.ZipInfo(name, _NO_DATE)
                info.external_attr = 0o644 << 16
                small.writestr(info, whole.read(name), zipfile.ZIP_DEFLATED)
