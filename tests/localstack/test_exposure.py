"""What LocalStack from PyPI and the database beside it answer, and to whom."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dev.addresses import free_port
from dev.aws import Aws
from dev.stack import start_aws


@pytest.fixture(scope="module")
def localstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS", "localstack-pypi")
        running = start_aws(tmp_path_factory.mktemp("localstack") / "aws", free_port())
    yield running
    running.stop()


def sockets_of(session: int) -> set[str]:
    """The inodes of all sockets that the processes of a session hold."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                found |= {str(handle.readlink()) for handle in (process / "fd").iterdir()}
        except OSError:
            continue  # It has just ended.
    return {name.removeprefix("socket:[").removesuffix("]") for name in found}


def listening(aws: Aws) -> set[str]:
    """The addresses on which its processes listen in this machine's network."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    inodes = {inode for child in aws.children for inode in sockets_of(child.pid)}
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}


@pytest.mark.timeout(900)  # It may have to be installed.
def test_nothing_listens_on_another_address_than_loopback(localstack: Aws) -> None:
    assert listening(localstack) == {"0100007F"}


@pytest.mark.timeout(900)
def test_a_web_page_gets_nothing_from_localstack(localstack: Aws) -> None:
    headers = {"Origin": "https://evil.example", "X-Amz-Target": "AmazonSQS.ListQueues"}
    answer = requests.post(f"{localstack.endpoint}/", headers=headers, data="{}", timeout=30)
    assert answer.status_code == 403
    assert "appjobs" not in answer.text
