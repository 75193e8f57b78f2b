"""A reverse proxy in front of AWS that fails some of the calls, as networks and services do.

    python -m tests.support.faults --listen 127.0.0.1:4567 --to http://127.0.0.1:4566 [--seed 1]

Programs go through it if their AWS_ENDPOINT_URL says so. While it runs, it gets rules that say what
becomes of which calls, and it says which calls came and what became of them:

    curl -X PUT http://127.0.0.1:4567/_faults -d '[{"Fault": "refuse", "Share": 0.2, "Service": "s3"}]'
    curl http://127.0.0.1:4567/_faults

DynamoDB carries out a transaction that is sent again with the same token only once, and MiniStack does
too; moto does not, so a transaction cut off by this proxy would be done twice there.
"""

import argparse
import asyncio
import random
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Self

import aiohttp
import msgspec
import requests
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from dev.addresses import answers
from dev.children import start_child
from dev.waiting import wait_for

# No bucket and no queue can have this name.
CONTROL = "/_faults"
# What became of calls that no rule struck, and of the second copies of duplicates.
FORWARDED, REPEATED = "forwarded", "repeated"
_START_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_SCOPE = re.compile(r"\bCredential=[^/,\s]*/\d{8}/[^/]+/([^/]+)/aws4_request")
# These are about one connection, and the two sides of a proxy have two.
_OF_THE_CONNECTION = frozenset({"connection", "expect", "keep-alive", "transfer-encoding"})
# What aiohttp would add to a call that came without.
_NOT_ADDED = ("Accept-Encoding", "Content-Type", "User-Agent")
_THROTTLED = {
    "dynamodb": "ProvisionedThroughputExceededException",
    "sqs": "RequestThrottled",
    "s3": "SlowDown",
}
_FAILURES = ((500, "InternalServerError"), (503, "ServiceUnavailable"))


class Fault(StrEnum):
    """What may become of a call."""

    # Answered 500 or 503, not forwarded.
    REFUSE = "refuse"
    # Answered that there are too many calls, not forwarded.
    THROTTLE = "throttle"
    # Forwarded after a while.
    DELAY = "delay"
    # The connection is reset and the call not forwarded.
    CUT_BEFORE = "cut_before"
    # Forwarded, and the connection is reset in place of the answer: the caller cannot know.
    CUT_AFTER = "cut_after"
    # Not forwarded and not answered; the connection is reset when the rules change.
    HANG = "hang"
    # Forwarded and answered, and forwarded once more after a while.
    DUPLICATE = "duplicate"


class Call(NamedTuple):
    """Which call of which service this is."""

    service: str
    # The services that speak JSON name it; S3's calls have only their HTTP method.
    operation: str

    def matches(self, service: str, operation: str) -> bool:
        """Whether the two shell patterns match it."""
        return fnmatchcase(self.service, service) and fnmatchcase(self.operation, operation)


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What becomes of a share of the calls that match two shell patterns."""

    fault: Fault
    share: float = 1.0
    service: str = "*"
    operation: str = "*"
    # The longest that a delay lasts, or that a duplicate takes.
    seconds: float = 3.0

    def matches(self, call: Call) -> bool:
        """Whether the rule is about such calls."""
        return call.matches(self.service, self.operation)


class Count(msgspec.Struct, frozen=True, rename="pascal"):
    """How many calls there were of a kind: `outcome` is a Fault, FORWARDED or REPEATED."""

    service: str
    operation: str
    outcome: str
    calls: int


class Proxy:
    """The proxy's own process: forwards calls to `to`, or does to them what a rule says."""

    def __init__(self, to: str, seed: int) -> None:
        self._to = to.rstrip("/")
        self._random = random.Random(seed)
        self._rules: list[Rule] = []
        self._rules_changed = asyncio.Event()
        self._counts: Counter[tuple[Call, str]] = Counter()
        self._repeating: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """The proxy as an application of aiohttp, which takes bodies of any size."""
        app = web.Application(client_max_size=0)
        app.cleanup_ctx.append(self._session)
        app.router.add_get(CONTROL, self._tell)
        app.router.add_put(CONTROL, self._change_rules)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _session(self, app: web.Application) -> AsyncIterator[None]:
        # A kept connection that the other side closes just then would be a fault that nobody asked for.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=_NOT_ADDED,
            auto_decompress=False,
        ) as self._client:
            yield

    async def _tell(self, request: web.Request) -> web.Response:
        counts = [
            Count(*call, outcome, calls) for (call, outcome), calls in sorted(self._counts.items())
        ]
        return _json(msgspec.json.encode(counts))

    async def _change_rules(self, request: web.Request) -> web.Response:
        try:
            self._rules = msgspec.json.decode(await request.read(), type=list[Rule])
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=f"{error}\n")
        self._rules_changed.set()
        self._rules_changed = asyncio.Event()
        return web.Response(status=204)

    async def _handle(self, request: web.Request) -> web.Response:
        call = call_of(request)
        rule = self._strike(call)
        self._counts[call, rule.fault if rule else FORWARDED] += 1
        # A call is whole before anything is done to it: what is cut is the answer.
        await request.read()
        return await (self._spoil(request, call, rule) if rule else self._forward(request))

    def _strike(self, call: Call) -> Rule | None:
        """The rule that strikes a call: one draw for all that match it, so that their shares add up."""
        drawn = self._random.random()
        for rule in self._rules:
            if rule.matches(call):
                drawn -= rule.share
                if drawn < 0:
                    return rule
        return None

    async def _spoil(self, request: web.Request, call: Call, rule: Rule) -> web.Response:
        match rule.fault:
            case Fault.REFUSE:
                return _error(request, *self._random.choice(_FAILURES))
            case Fault.THROTTLE:
                return _throttled(request, call)
            case Fault.DELAY:
                await self._wait(rule)
                return await self._forward(request)
            case Fault.DUPLICATE:
                self._repeat(request, call, rule)
                return await self._forward(request)
            case Fault.CUT_AFTER:
                await self._forward(request)
            case Fault.HANG:
                await self._rules_changed.wait()
        return _cut(request)

    async def _wait(self, rule: Rule) -> None:
        await asyncio.sleep(self._random.uniform(0, rule.seconds))

    def _repeat(self, request: web.Request, call: Call, rule: Rule) -> None:
        async def repeat() -> None:
            await self._wait(rule)
            await self._forward(request)
            self._counts[call, REPEATED] += 1

        task = asyncio.create_task(repeat())
        # The loop itself keeps only a weak reference.
        self._repeating.add(task)
        task.add_done_callback(self._repeating.discard)

    async def _forward(self, request: web.Request) -> web.Response:
        """Passes a call on unchanged, with its Host: AWS answers with addresses made from that."""
        url = URL(f"{self._to}{request.raw_path}", encoded=True)
        headers = _passed_on(request.headers)
        body = await request.read()
        async with self._client.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            return web.Response(
                status=answer.status,
                reason=answer.reason,
                headers=_passed_on(answer.headers),
                body=await answer.read(),
            )


def call_of(request: web.Request) -> Call:
    """Which call a request is; the service is empty if it is not signed."""
    signed = request.headers.get("Authorization", "")
    presigned = f"Credential={request.query.get('X-Amz-Credential', '')}"
    scope = _SCOPE.search(signed) or _SCOPE.search(presigned)
    target = request.headers.get("X-Amz-Target", "")
    return Call(scope[1] if scope else "", target.rpartition(".")[2] or request.method)


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION
    )


def _throttled(request: web.Request, call: Call) -> web.Response:
    status = 503 if call.service == "s3" else 400
    return _error(request, status, _THROTTLED.get(call.service, "ThrottlingException"))


def _error(request: web.Request, status: int, code: str) -> web.Response:
    """A service's own words for an error: JSON from those that were spoken to in JSON, else XML."""
    if "X-Amz-Target" in request.headers:
        return _json(msgspec.json.encode({"__type": code, "message": "a test's fault"}), status)
    text = f"<Error><Code>{code}</Code><Message>a test's fault</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _cut(request: web.Request) -> web.Response:
    """Resets the caller's connection; nobody gets the answer that aiohttp requires."""
    if request.transport:
        # To linger for no time at all makes the kernel send a reset in place of an orderly end.
        no_time = struct.pack("ii", 1, 0)
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        request.transport.abort()
    return web.Response()


class Faults:
    """The proxy as a child process that listens at `endpoint`; a context manager."""

    def __init__(self, to: str, bind: str, port: int, log: Path, seed: int = 1) -> None:
        """Starts it in front of the AWS at `to`. Raises LocalError."""
        self.endpoint = f"http://{bind}:{port}"
        self._control = f"{self.endpoint}{CONTROL}"
        options = ["--listen", f"{bind}:{port}", "--to", to, "--seed", str(seed)]
        self._child = start_child(
            "faults", [sys.executable, "-m", "tests.support.faults", *options], {}, log
        )
        try:
            wait_for(lambda: answers(self._control), _START_SECONDS, "the proxy", self._child)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends it; calls under way are cut."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def set(self, *rules: Rule) -> None:
        """From now on only these rules apply; calls that hang are cut."""
        body = msgspec.json.encode(rules)
        requests.put(self._control, data=body, timeout=_ANSWER_SECONDS).raise_for_status()

    def counts(self) -> list[Count]:
        """What came until now, and what became of it."""
        answer = requests.get(self._control, timeout=_ANSWER_SECONDS)
        return msgspec.json.decode(answer.content, type=list[Count])

    def calls(self, outcome: str = "*", service: str = "*", operation: str = "*") -> int:
        """How many calls matched three shell patterns until now."""
        return sum(
            count.calls
            for count in self.counts()
            if fnmatchcase(count.outcome, outcome)
            and Call(count.service, count.operation).matches(service, operation)
        )


def main() -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faults", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--to", required=True, metavar="URL")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    web.run_app(
        Proxy(options.to, options.seed).application(),
        host=host,
        port=int(port),
        # It would wait longer for calls that hang, or that wait for a message.
        shutdown_timeout=0.1,
        print=None,
        access_log=None,
    )


if __name__ == "__main__":
    main()
