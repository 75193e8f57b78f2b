"""AWS on this machine, with the deployed template in it; and the child processes that make it up.

MiniStack by default; LocalStack where the environment says `AWS=localstack` (in a container) or
`AWS=localstack-pypi` (as a process).
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from deploy.cloudformation import DeployError, deploy_stack, settings_of
from deploy.project import LOCAL, ROOT, TEMPLATE, locked
from dev.engine import EngineError, log_tail, wait_for

STACK = "appjobs-dev"
KINDS = ("ministack", "localstack", "localstack-pypi")
PORT = 4566
_COMPOSE_FILE = ROOT / "localstack-compose.yml"
_REGION = "us-east-1"
# LocalStack and DynamoDB Local take any.
_ANY_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
# A container takes longer, and its image may have to be pulled.
_LOCALSTACK_SECONDS = 600.0


class StackError(Exception):
    """The local AWS, or a child process, cannot be had; the text says why and what to do."""


@dataclass
class Child:
    """A process that we started, in a session of its own: a Ctrl-C in the terminal passes it by."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def logs(self) -> list[Path]:
        return [self.log]

    def check(self) -> None:
        """Raises StackError with the end of its log when the process is over."""
        code = self.process.poll()
        if code is not None:
            raise StackError(f"{self.name} ended with code {code}, {tail(self.log)}")

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Ends the process: SIGTERM, and SIGKILL when that does not help within `seconds`."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


@dataclass
class Aws:
    """A local AWS; `environment` is for who uses it: API and worker, once the template is deployed."""

    endpoint: str
    # The first has the endpoint; none where it is a container.
    children: list[Child] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def logs(self) -> list[Path]:
        return [child.log for child in self.children]

    @property
    def pid(self) -> int | None:
        return self.children[0].pid if self.children else None

    def client(self, service: str) -> Any:
        """A boto3 client of the service, wherever the environment says that it is."""
        return aws_client(self.environment, service)

    def check(self) -> None:
        """Raises StackError when one of its processes is over."""
        for child in self.children:
            child.check()

    def stop(self) -> None:
        """Stops it; its state stays in the state directory (LocalStack keeps none)."""
        for child in self.children:
            child.stop()


class _Composed(Aws):
    """LocalStack in a container."""

    def stop(self) -> None:
        _compose("down")


def start_aws(state_dir: Path, port: int = PORT, bind: str = "127.0.0.1") -> Aws:
    """Starts AWS with the state it had in `state_dir`, and deploys the template.

    It listens on `bind` (`0.0.0.0`: all interfaces). Raises StackError.
    """
    check_port(bind, port)
    go_without_proxy(bind)
    kind = os.environ.get("AWS") or "ministack"
    if kind not in KINDS:
        raise StackError(f"AWS must be unset or one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "localstack-pypi":
        # It is made of what is in this module.
        from dev.localstack import start_localstack

        return start_localstack(state_dir, port, bind)
    if kind == "localstack":
        aws = _start_container(bind, port)
    else:
        aws = start_ministack(state_dir, port, bind)
    try:
        aws.environment |= deploy(aws.environment)
    except BaseException:
        aws.stop()
        raise
    return aws


def start_ministack(
    state_dir: Path,
    port: int,
    bind: str = "127.0.0.1",
    base: str = sys.executable,
    **settings: str,
) -> Aws:
    """Starts MiniStack with the state it had in `state_dir`, and nothing deployed by us.

    It answers to those who have the keys of its `environment`, which stay the same with the state.
    It runs Lambdas with the interpreter `base`, as which it runs itself. `settings` are more of its own
    environment. Raises StackError.
    """
    python = python_of("ministack", "MiniStack", base)
    log = state_dir.with_suffix(".log")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = keys_of(state_dir)
    environment = {**_ministack_settings(state_dir.absolute(), bind, port), **keys, **settings}
    # SIGTERM makes it write its state; nothing else does.
    child = start_child("aws", [str(python), "-m", "dev.ministack_door"], environment, log, "TERM")
    go_without_proxy(bind)
    endpoint = reachable_at(bind, port)
    aws = Aws(endpoint, [child], aws_environment(endpoint, keys))
    try:
        wait_until(lambda: answers(f"{aws.endpoint}/_ministack/health"), _START_SECONDS, "AWS", aws)
    except BaseException:
        child.stop()
        raise
    return aws


def deploy(
    environment: Mapping[str, str], prefix: str = STACK, template: str | None = None
) -> dict[str, str]:
    """Deploys the template, or the given one, as the stack `prefix`, which is made or updated.

    `environment` says on which AWS. Returns the settings of API and worker. Raises StackError.
    """
    stack = {
        "StackName": prefix,
        "TemplateBody": template or TEMPLATE.read_text(encoding="utf-8"),
        "Parameters": [{"ParameterKey": "Prefix", "ParameterValue": prefix}],
    }
    try:
        outputs = deploy_stack(aws_client(environment, "cloudformation"), stack)
    except DeployError as error:
        raise StackError(str(error)) from None
    return settings_of(outputs)


def reachable_at(bind: str, port: int) -> str:
    """The URL of what listens there."""
    return f"http://{'127.0.0.1' if bind == '0.0.0.0' else bind}:{port}"


def aws_environment(endpoint: str, keys: Mapping[str, str] = _ANY_KEYS) -> dict[str, str]:
    """What botocore needs to use the AWS at `endpoint`."""
    host = str(urlsplit(endpoint).hostname)
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": _REGION,
        **keys,
        **_proxy_exceptions(host),
    }


def go_without_proxy(host: str) -> None:
    """From now on, this process and its children take no proxy to that host, nor to this machine."""
    os.environ.update(_proxy_exceptions(host))


def _proxy_exceptions(host: str) -> dict[str, str]:
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [one.strip() for one in given.split(",") if one.strip()]
    hosts += [one for one in ("127.0.0.1", "localhost", host) if one not in hosts]
    # Each program reads one of the two.
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(dict.fromkeys(hosts)))


def aws_client(environment: Mapping[str, str], service: str) -> Any:
    """A boto3 client of the AWS of that environment, whatever this process's own says."""
    own = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}")
    return boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    ).client(service, endpoint_url=own or environment["AWS_ENDPOINT_URL"])


def start_child(
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    orphan_signal: str = "KILL",
) -> Child:
    """Starts a process that appends to `log` and dies by `orphan_signal` when we are killed.

    The environment is ours without what concerns AWS, plus `environment`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Unlike a preexec function, setpriv is safe where other threads run. Only Linux has it.
    guard = ["setpriv", "--pdeathsig", orphan_signal, "--"] if shutil.which("setpriv") else []
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*guard, *command],
            cwd=ROOT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return Child(name, process, log)


def check_port(bind: str, port: int) -> None:
    """Raises StackError when something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise StackError(f"port {port} of {bind} is taken ({error.strerror})") from None


def wait_until(
    condition: Callable[[], bool], seconds: float, what: str, *watched: Child | Aws
) -> None:
    """Waits until the condition holds.

    Raises StackError naming `what` after `seconds`, or as soon as one of the watched is over.
    """

    def holds() -> bool:
        if condition():
            return True
        for process in watched:
            process.check()
        return False

    try:
        wait_for(holds, seconds, what)
    except EngineError as error:
        logs = "".join(f"; {tail(log)}" for process in watched for log in process.logs)
        raise StackError(f"{error}{logs}") from None


def tail(log: Path) -> str:
    """The end of a log file, as a phrase that names it."""
    if not log.exists():
        return f"no log at {log}"
    return "\n  ".join([f"the end of {log}:", *log_tail(log).splitlines()])


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET of the URL is answered with success within a few seconds."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _ministack_settings(state_dir: Path, bind: str, port: int) -> dict[str, str]:
    temporary = state_dir / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "AUTH": "true",
        "BIND_HOST": bind,
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state_dir / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state_dir / "s3"),
        # It keeps a file with its process id there, by port alone.
        "TMPDIR": str(temporary),
        # Listeners of its own, on fixed ports.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }


def keys_of(state_dir: Path) -> dict[str, str]:
    """The keys of the AWS with that state, made when it has none."""
    path = state_dir / "keys.json"
    if not path.exists():
        key = "AKIA" + "".join(
            secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)
        )
        secret = secrets.token_urlsafe(30)
        write_private(path, json.dumps({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}))
    return dict(json.loads(path.read_text(encoding="utf-8")))


def close_local() -> None:
    """Keeps other users of the machine out of `.local`: it holds keys, tokens, logs and output."""
    LOCAL.mkdir(exist_ok=True)
    LOCAL.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Writes a file that nobody else may read, and nobody reads half of."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def python_of(name: str, title: str, base: str = sys.executable) -> Path:
    """The interpreter of the environment of dev/<name>.txt, made of `base` when missing or out of date.

    Raises StackError.
    """
    folder = LOCAL / (name if base == sys.executable else f"{name}-{Path(base).name}")
    stamp = folder / "made-of"
    requirements = ROOT / "dev" / f"{name}.txt"
    wanted = f"{base}\n{requirements.read_text(encoding='utf-8')}"
    with locked(LOCAL / f"{name}.lock"):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            _install(folder, requirements, title, base)
            stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path, title: str, base: str) -> None:
    print(f"installing {title}", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
    for command in ([base, "-m", "venv", "--clear", str(folder)], [*pip, "-r", str(requirements)]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise StackError(f"installing {title} failed: {done.stdout}{done.stderr}".strip())


def _start_container(bind: str, port: int) -> Aws:
    _compose("up", "--detach", LOCALSTACK_BIND=bind, LOCALSTACK_PORT=str(port))
    endpoint = reachable_at(bind, port)
    aws = _Composed(endpoint, environment=aws_environment(endpoint))
    try:
        health = f"{aws.endpoint}/_localstack/health"
        wait_until(lambda: answers(health), _LOCALSTACK_SECONDS, "LocalStack")
    except BaseException:
        aws.stop()
        raise
    return aws


def _compose(*arguments: str, **environment: str) -> None:
    command = [*_compose_command(), "-f", str(_COMPOSE_FILE), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StackError(f"LocalStack, docker compose {arguments[0]}: {reason[-1]}")


def _compose_command() -> list[str]:
    plugin = ["docker", "compose"]
    if shutil.which("docker"):
        done = subprocess.run([*plugin, "version"], capture_output=True)
        if done.returncode == 0:
            return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise StackError("AWS=localstack needs docker compose: install it, or leave AWS unset")


def main() -> None:
    """Starts AWS alone, for looking into it: `python -m dev.stack`."""
    close_local()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    aws = start_aws(LOCAL / "aws", int(os.environ.get("AWS_PORT") or PORT))
    try:
        print("\n".join(f"{key}={value}" for key, value in aws.environment.items()), flush=True)
        ended.wait()
    finally:
        aws.stop()


if __name__ == "__main__":
    main()
