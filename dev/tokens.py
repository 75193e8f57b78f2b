"""Tokens for what runs here, made with the command that operators have."""

import os
import subprocess
import sys
from collections.abc import Mapping

from deploy.project import ROOT
from dev.children import without_aws
from dev.errors import LocalError


def make_token(environment: Mapping[str, str], name: str, *options: str) -> str:
    """Makes a token in the AWS of that environment. `options` are those of `create`.

    Raises LocalError.
    """
    done = _command(environment, "create", "--name", name, *options)
    if done.returncode:
        raise LocalError(f"making a token failed: {done.stderr.strip()}")
    return done.stdout.strip()


def revoke_token(environment: Mapping[str, str], name: str) -> bool:
    """Revokes the token of that name. False if there is none, or more than one."""
    return _command(environment, "revoke", name).returncode == 0


def bearer(token: str) -> dict[str, str]:
    """The header that shows the token."""
    return {"Authorization": f"Bearer {token}"}


def _command(environment: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "chalicelib.tokens", *arguments],
        cwd=ROOT,
        env={**without_aws(os.environ), **environment},
        capture_output=True,
        text=True,
    )
