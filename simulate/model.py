"""What API, workers and the closing function do, as processes in virtual time.

Each step counts what `steps` says, and waits for what it needs: a place, a processor, a partition key.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from simulate import steps
from simulate.loop import Loop, Process
from simulate.stack import KMS, PUTS, Setup, Stack
from simulate.steps import BATCH, PART_TARGETS, Fanout
from simulate.usage import INDEX_UNITS, READ_UNITS, WRITE_UNITS, Usage

# As the worker and the functions have them.
MAX_COMMANDS = 32
SENDERS = CLOSERS = 16
SETTLE_SECONDS = 0.5
SHORT_SECONDS = 0.25
WINDOW_SECONDS = 2.0
WINDOW_MESSAGES = 100
# An index of DynamoDB is written after its table: nobody waits, but it has limits of its own.
DUE_SHARDS = 16
NEVER = math.nan


@dataclass
class Execution:
    """One start, and when what happened: seconds since its request came."""

    number: int
    job: str
    came: float
    # The targets under way, by part.
    left: Counter[int]
    accepted: float = NEVER
    answered: float = NEVER
    first_over: float = NEVER
    last_over: float = NEVER
    closed: float = NEVER

    @property
    def key(self) -> str:
        return str(self.number)


@dataclass
class Node:
    """A worker and its engine, and the messages on its queue."""

    name: str
    waiting: deque[tuple[Execution, int]] = field(default_factory=deque)
    running: int = 0
    polls: bool = False
    # When it knows the command of an execution.
    loaded: dict[int, float] = field(default_factory=dict)
    # The same for each of its parts.
    parts: dict[tuple[int, int], float] = field(default_factory=dict)
    ended: list[tuple[Execution, int]] = field(default_factory=list)
    settles: bool = False


class Model:
    """Nodes that run what is started. All starts have the same fanout."""

    def __init__(self, setup: Setup, fanout: Fanout, nodes: int, jobs: int = 1) -> None:
        self.loop = Loop()
        self.stack = Stack(self.loop, setup)
        self.executions: list[Execution] = []
        self._setup = setup
        self._costs = setup.costs
        self._fanout = fanout
        self._jobs = jobs
        self._nodes = [Node(str(number)) for number in range(nodes)]
        self._reported: deque[Execution] = deque()
        self._gathers = False

    def start(self, after: float = 0.0) -> None:
        """Somebody starts a job after so many seconds; the jobs and nodes take turns."""
        self.loop.spawn(self._start(), after)

    # --- the API ---------------------------------------------------------------------------------

    def _start(self) -> Process:
        if not self.stack.gateway.take():
            return
        number = len(self.executions)
        left = Counter(self._part(position) for position in range(self._fanout.targets))
        execution = Execution(number, str(number % self._jobs), self.loop.now, left)
        self.executions.append(execution)
        yield self._costs.invoke_seconds
        yield from self.stack.functions.enter()
        began = self.loop.now
        yield from self._accept(execution)
        execution.accepted = self.loop.now - execution.came
        yield from self._send(execution)
        execution.answered = self.loop.now - execution.came
        self._leave_function(began, self._setup.api_megabytes)

    def _accept(self, execution: Execution) -> Process:
        costs, usage = self._costs, self._count(steps.accept(self._fanout))
        cpu = (
            costs.api_cpu
            + costs.api_cpu_per_node * self._fanout.nodes
            + costs.api_cpu_per_part * self._fanout.parts
        )
        yield self.stack.compute_in_function(cpu, self._setup.api_megabytes)
        yield costs.read_seconds * (usage["GetItem"] + usage["BatchGetItem"])
        yield costs.transact_seconds + self._write_start(execution)

    def _write_start(self, execution: Execution) -> float:
        """Each item of the transaction goes to its own table and key."""
        fanout, stack = self._fanout, self.stack
        shard = str(execution.number % DUE_SHARDS)
        stack.write("index of what is due", shard, 1)
        stack.write("index of the audit", execution.job, 1)
        stack.read("jobs", execution.job, steps.JOB_READ_UNITS)
        stack.read("nodes", execution.key, fanout.nodes / 2)
        return max(
            stack.write(table, key, units)
            for table, key, units in (
                ("jobs", execution.job, steps.JOB_UNITS),
                ("audit", "today", steps.AUDIT_UNITS),
                ("executions", execution.job, steps.execution_units(fanout)),
                ("targets", execution.key, steps.parts_units(fanout)),
            )
        )

    def _send(self, execution: Execution) -> Process:
        """One message per target, in batches of one queue, by so many threads."""
        share = self._fanout.targets_of_a_node
        cpu, wait = self._costs.api_cpu_per_send, self._costs.sqs_seconds / SENDERS
        for place in range(self._fanout.nodes):
            node = self._nodes[(execution.number * self._fanout.nodes + place) % len(self._nodes)]
            first, end = place * share, min((place + 1) * share, self._fanout.targets)
            for begin in range(first, end, BATCH):
                self._count({"SendMessageBatch": 1})
                computed = self.stack.compute_in_function(cpu, self._setup.api_megabytes)
                yield max(computed, wait)
                positions = range(begin, min(begin + BATCH, end))
                self._deliver(node, [(execution, position) for position in positions])
        yield self._costs.sqs_seconds

    # --- a worker --------------------------------------------------------------------------------

    def _deliver(self, node: Node, messages: list[tuple[Execution, int]]) -> None:
        node.waiting.extend(messages)
        self._wake(node, self._costs.deliver_seconds)

    def _wake(self, node: Node, after: float) -> None:
        if node.waiting and not node.polls and node.running < MAX_COMMANDS:
            node.polls = True
            self.loop.spawn(self._poll(node), after)

    def _poll(self, node: Node) -> Process:
        while node.waiting and node.running < MAX_COMMANDS:
            self._count({"ReceiveMessage": 1})
            for _ in range(min(BATCH, len(node.waiting), MAX_COMMANDS - node.running)):
                node.running += 1
                self.loop.spawn(self._run(node, *node.waiting.popleft()))
            yield self._costs.sqs_seconds
        node.polls = False

    def _run(self, node: Node, execution: Execution, position: int) -> Process:
        """One target, from its message to its result."""
        costs, part = self._costs, self._part(position)
        half = (costs.worker_cpu + costs.engine_cpu) / 2
        yield self._load(node, execution, part)
        yield self.stack.compute(node.name, half, costs.node_cores)
        yield self._write_result(execution, part, steps.claim(self._fanout))
        computed = self.stack.compute(node.name, half, costs.node_cores)
        seconds = computed + costs.exec_seconds + self._setup.command_seconds
        if seconds > SHORT_SECONDS:
            self._write_result(execution, part, steps.note_running(self._fanout))
        yield seconds
        if log := self._count(steps.keep_log(self._fanout)):
            yield self._keep_log(execution, part, log)
        yield self._write_result(execution, part, steps.finish(self._fanout))
        self._note_over(execution)
        node.running -= 1
        self._wake(node, 0)
        node.ended.append((execution, part))
        if not node.settles:
            node.settles = True
            self.loop.spawn(self._settle(node), SETTLE_SECONDS)

    def _load(self, node: Node, execution: Execution, part: int) -> float:
        """The first target of an execution on a node reads its command, the others wait for that.

        The same for a part.
        """
        if execution.number not in node.loaded:
            node.loaded[execution.number] = self.loop.now + self._load_command(execution)
        key = (execution.number, part)
        if key not in node.parts:
            node.parts[key] = node.loaded[execution.number] + self._load_part(execution, part)
        return max(node.parts[key] - self.loop.now, 0)

    def _load_command(self, execution: Execution) -> float:
        usage = self._count(steps.load(self._fanout))
        reading = self.stack.read("executions", execution.job, usage[READ_UNITS])
        opened = usage["Decrypt"]
        opening = self.stack.serve(KMS, "", self._setup.limits.kms, opened)
        seconds = self._costs.read_seconds + opened * self._costs.kms_seconds
        return max(reading, opening) + seconds

    def _load_part(self, execution: Execution, part: int) -> float:
        if not (usage := self._count(steps.load_part(self._fanout, part))):
            return 0
        return self._costs.read_seconds + self.stack.read(
            "targets", execution.key, usage[READ_UNITS]
        )

    def _write_result(self, execution: Execution, part: int, usage: Usage) -> float:
        self._count(usage)
        key = f"{execution.key}/{part}"
        return self._costs.write_seconds + self.stack.write("results", key, usage[WRITE_UNITS])

    def _keep_log(self, execution: Execution, part: int, usage: Usage) -> float:
        key, puts = f"{execution.key}/{part}", usage.get("PutObject", 0)
        written = self.stack.write("outputs", key, usage[WRITE_UNITS]) + self._costs.write_seconds
        if not puts:
            return written
        put = self.stack.serve(PUTS, "", self._setup.limits.puts, puts)
        return written + put + self._costs.put_object_seconds

    def _note_over(self, execution: Execution) -> None:
        seconds = self.loop.now - execution.came
        if math.isnan(execution.first_over):
            execution.first_over = seconds
        execution.last_over = seconds

    def _settle(self, node: Node) -> Process:
        """Counts what has ended, part by part, reports complete parts, and deletes the messages."""
        while node.ended:
            ended, node.ended = node.ended, []
            parts = Counter((execution.number, part) for execution, part in ended)
            for (number, part), targets in parts.items():
                yield self._count_ends(self.executions[number])
                yield from self._complete(self.executions[number], part, targets)
            deleting = self._count(steps.delete(len(ended)))
            yield deleting["DeleteMessageBatch"] * self._costs.sqs_seconds + SETTLE_SECONDS
        node.settles = False

    def _count_ends(self, execution: Execution) -> float:
        usage = self._count(steps.count(self._fanout))
        written = self.stack.write("counts", execution.key, usage[WRITE_UNITS])
        return written + self._costs.write_seconds

    def _complete(self, execution: Execution, part: int, targets: int) -> Process:
        execution.left[part] -= targets
        if not execution.left[part]:
            self._count(steps.report(self._fanout))
            yield self._costs.sqs_seconds
            self._reported.append(execution)
            if not self._gathers:
                self._gathers = True
                self.loop.spawn(self._gather())

    # --- closing ---------------------------------------------------------------------------------

    def _gather(self) -> Process:
        """Lambda gathers messages for the window, or until it has enough."""
        while self._reported:
            if len(self._reported) < WINDOW_MESSAGES:
                yield WINDOW_SECONDS
            size = min(len(self._reported), WINDOW_MESSAGES)
            batch = [self._reported.popleft() for _ in range(size)]
            self._count(steps.take_reports(len(batch)))
            self.loop.spawn(self._close_batch(batch))
        self._gathers = False

    def _close_batch(self, batch: list[Execution]) -> Process:
        executions = {execution.number: execution for execution in batch}.values()
        yield from self.stack.closers.enter()
        yield from self.stack.functions.enter()
        began = self.loop.now
        costs = self._costs
        cpu = costs.closing_cpu + costs.closing_cpu_per_execution * len(executions)
        yield self.stack.compute_in_function(cpu, self._setup.closing_megabytes)
        still_open = [execution for execution in executions if math.isnan(execution.closed)]
        usage = self._count(steps.look(self._fanout, len(executions), len(still_open)))
        parts = self._fanout.parts
        waits = [self.stack.read("counts", execution.key, parts) for execution in still_open]
        yield max(waits, default=0) + usage["BatchGetItem"] * costs.read_seconds
        over = [one for one in still_open if math.isnan(one.closed) and not any(one.left.values())]
        yield max((self._close(execution) for execution in over), default=0)
        yield costs.write_seconds * math.ceil(len(over) / CLOSERS)
        self.stack.closers.leave(began)
        self._leave_function(began, self._setup.closing_megabytes)

    def _close(self, execution: Execution) -> float:
        usage = self._count(steps.close(self._fanout))
        execution.closed = self.loop.now + self._costs.write_seconds - execution.came
        shard = str(execution.number % DUE_SHARDS)
        self.stack.write("index of what is due", shard, usage[INDEX_UNITS])
        return self.stack.write("executions", execution.job, usage[WRITE_UNITS])

    # --- both ------------------------------------------------------------------------------------

    def _part(self, position: int) -> int:
        return position // PART_TARGETS

    def _count(self, usage: Usage) -> Usage:
        self.stack.count(usage)
        return usage

    def _leave_function(self, began: float, megabytes: int) -> None:
        self.stack.functions.leave(began)
        self._count(steps.call(megabytes / 1024, self.loop.now - began))
