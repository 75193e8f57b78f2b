"""The DynamoDB tables. Here are only attributes; the other modules say what is written when, and on
which condition.

Attributes have the API's names, so the PascalCase here is not a slip.
"""

from typing import Any

from pynamodb.attributes import (
    Attribute,
    BinaryAttribute,
    BooleanAttribute,
    JSONAttribute,
    ListAttribute,
    NumberAttribute,
    NumberSetAttribute,
    UnicodeAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model

from chalicelib.clients.aws import ANSWER_SECONDS, CONNECT_SECONDS, TRIES
from chalicelib.config import settings

# Execution.Open is one of this many texts: "0", "1", …
SHARDS = 16


class _Meta:
    # As in `clients.aws`: botocore retries, with jitter.
    max_retry_attempts = TRIES - 1
    connect_timeout_seconds = CONNECT_SECONDS
    read_timeout_seconds = ANSWER_SECONDS
    max_pool_connections = 64


class _OptionalText(UnicodeAttribute):
    """A text that is absent if it is empty: not every DynamoDB stores the empty string."""

    def __init__(self) -> None:
        super().__init__(null=True, default="")

    def serialize(self, value: str) -> str | None:
        return value or None


class _OptionalNumber(NumberAttribute):
    """A number that is absent if it is 0."""

    def __init__(self) -> None:
        super().__init__(null=True, default=0)

    def serialize(self, value: int) -> str | None:
        return str(value) if value else None


class _Command(Model):
    """What a job runs. The attributes here are a job's fields: FIELDS has their names."""

    AppName = UnicodeAttribute()
    ServiceName = _OptionalText()
    Name = UnicodeAttribute()
    Cmd = UnicodeAttribute()
    Privileged = BooleanAttribute()
    User = _OptionalText()
    Env: ListAttribute[Any] = ListAttribute(of=UnicodeAttribute)
    # A target's log takes at most this many bytes of output; 0: as many as the worker allows.
    LogBytes = _OptionalNumber()
    # `sealing.pack`ed; absent if there are none.
    Sealed = BinaryAttribute(legacy_encoding=False, null=True)


# What an edit stores, and what an execution copies from its job.
COMMAND = tuple(name for name, value in vars(_Command).items() if isinstance(value, Attribute))
# What requests set and answers show under the same name. The secrets are not among them: they are sealed.
FIELDS = tuple(name for name in COMMAND if name != "Sealed")


class JobsByApp(GlobalSecondaryIndex["Job"]):  # type: ignore[no-untyped-call]
    """The keys of one application's jobs, by name. Keys only: a start writes nothing to it."""

    class Meta:
        index_name = "by-app-name"
        projection = KeysOnlyProjection()

    AppName = UnicodeAttribute(hash_key=True)
    Name = UnicodeAttribute(range_key=True)


class Job(_Command):
    """A saved command."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-jobs"

    JobId = UnicodeAttribute(hash_key=True)
    # Only edits change it, so that starts do not disturb each other.
    Revision = NumberAttribute()
    # The newest starts, in the order in which they were written.
    Executors: ListAttribute[Any] = ListAttribute(of=UnicodeAttribute)
    # [[AppName, the last ExecutorId that it may have], …]: the applications that it left, in order.
    Moves = JSONAttribute(null=True)
    by_app = JobsByApp()


class JobName(Model):
    """Who owns a name within its application."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-names"

    AppName = UnicodeAttribute(hash_key=True)
    Name = UnicodeAttribute(range_key=True)
    JobId = UnicodeAttribute()


class DueExecutions(GlobalSecondaryIndex["Execution"]):  # type: ignore[no-untyped-call]
    """The keys of the executions that are not closed: in shards, those first that upkeep needs first."""

    class Meta:
        index_name = "due"
        projection = KeysOnlyProjection()

    Open = UnicodeAttribute(hash_key=True)
    DueTime = NumberAttribute(range_key=True)


class Execution(_Command):
    """One start of a job, with the job as it was then. Later, only upkeep and closing change the item."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-executions"

    JobId = UnicodeAttribute(hash_key=True)
    ExecutorId = UnicodeAttribute(range_key=True)
    # The name of the token that started it.
    By = UnicodeAttribute()
    # How many targets it has; of them Succeeded (exit code 0) and Failed are counted when it is closed.
    Total = NumberAttribute()
    # In how many parts the targets are. If there is one, it is here, {"Nodes": …, "Refused": …}: a small
    # start has no item of a TargetPart.
    Parts = NumberAttribute()
    Targets = JSONAttribute(null=True)
    # True if the caller who started it may run as root.
    MayRunAsRoot = BooleanAttribute(null=True)
    # True if it runs only in containers of its application: its starter is bound, or the rule is on.
    OwnContainersOnly = BooleanAttribute(null=True)
    ExpiresAt = NumberAttribute()
    # Its shard of the index, and when upkeep has to look at it, in seconds. When it is closed, both go.
    Open = UnicodeAttribute(null=True)
    DueTime = NumberAttribute(null=True)
    # When upkeep last sent the messages of its targets again, in seconds; absent if it never did.
    ResentTime = NumberAttribute(null=True)
    # Written when it is closed. EndTime is when its last target ended.
    Succeeded = NumberAttribute(null=True)
    Failed = NumberAttribute(null=True)
    EndTime = NumberAttribute(null=True)
    by_due = DueExecutions()


class TargetPart(Model):
    """One part of an execution's targets. It is written with the execution, and never changes."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-targets"

    # "<JobId>/<ExecutorId>"
    Execution = UnicodeAttribute(hash_key=True)
    Part = NumberAttribute(range_key=True)
    # {NodeId: [[position in the request, ContainerId], …]}
    Nodes = JSONAttribute()
    # {NodeId: [Reason, version]}: the nodes among these that cannot run the execution.
    Refused = JSONAttribute()
    ExpiresAt = NumberAttribute()


class Result(Model):
    """What became of one target."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-results"

    # "<JobId>/<ExecutorId>/<Part>": so the results of many targets are spread over partitions.
    Execution = UnicodeAttribute(hash_key=True)
    # As the target spells it.
    ContainerId = UnicodeAttribute(range_key=True)
    NodeId = UnicodeAttribute()
    Status = UnicodeAttribute()
    ID = UnicodeAttribute(null=True)
    # The engine's own inspect of the exec, its secret arguments masked; shortened as `exec_inspect` says.
    Inspect = JSONAttribute(null=True)
    # The end of the output, as the command wrote it; or, if that is long, which Output has it.
    Output = BinaryAttribute(legacy_encoding=False, null=True)
    OutputAt = UnicodeAttribute(null=True)
    OutputSize = NumberAttribute(null=True)
    OutputIncomplete = BooleanAttribute(null=True)
    # What a log that became too long lacks: {"Bytes": …, "After": …}.
    OutputDropped: JSONAttribute = JSONAttribute(null=True)
    E = UnicodeAttribute(null=True)
    Reason = UnicodeAttribute(null=True)
    # Only in a result with the long id: the target that has this container by another spelling.
    TakenBy = UnicodeAttribute(null=True)
    StartTime = NumberAttribute(null=True)
    EndTime = NumberAttribute(null=True)
    ExpiresAt = NumberAttribute()


class Wishes(Model):
    """What somebody wants of a running execution: one item, below 1 KiB, as it is read often."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-wishes"

    # "<JobId>/<ExecutorId>"
    Execution = UnicodeAttribute(hash_key=True)
    # Somebody looks at its logs: since when, without a gap, and how long that is assumed to go on.
    WatchedSince = NumberAttribute(null=True)
    WatchedUntil = NumberAttribute(null=True)
    # [[ContainerId, when], …]: whose log somebody wants as one object now, and since when; newest last.
    Assemble = JSONAttribute(null=True)
    ExpiresAt = NumberAttribute()


class Segment(Model):
    """A piece of a log that grows; its bytes never change. The item with First -1 is the log's state."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-segments"

    # "<JobId>/<ExecutorId>/<ContainerId>"
    Log = UnicodeAttribute(hash_key=True)
    # The place of its first byte in the log.
    First = NumberAttribute(range_key=True)
    Size = NumberAttribute(null=True)
    # The bytes of a short one, in the pieces in which they came; those of a long one are in S3.
    Bytes: ListAttribute[Any] = ListAttribute(of=BinaryAttribute, null=True)
    # Of the state: how many bytes the longest object has to which the log was put together.
    Assembled = NumberAttribute(null=True)
    # Of the state: the last watch (its "since") for which the worker brought the segments up to date.
    CaughtUp = NumberAttribute(null=True)
    ExpiresAt = NumberAttribute()


class Output(Model):
    """The end of one output that is too long for its result. It never changes."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-outputs"

    # As that of the result.
    Execution = UnicodeAttribute(hash_key=True)
    # "<ContainerId>/<OutputAt of the result>"
    At = UnicodeAttribute(range_key=True)
    Bytes = BinaryAttribute(legacy_encoding=False)
    ExpiresAt = NumberAttribute()


class Counts(Model):
    """Which targets of one part of an execution are over. It follows from the results.

    Numbers are only added to the sets. So a write that is repeated counts nothing twice.
    """

    class Meta(_Meta):
        table_name = f"{settings.prefix}-counts"

    # "<JobId>/<ExecutorId>"
    Execution = UnicodeAttribute(hash_key=True)
    Part = NumberAttribute(range_key=True)
    # The positions of the targets that ended with exit code 0, and of the others that are over.
    Succeeded = NumberSetAttribute(null=True)
    Failed = NumberSetAttribute(null=True)
    # When they ended.
    EndTimes = NumberSetAttribute(null=True)
    ExpiresAt = NumberAttribute()


class Node(Model):
    """An engine that a worker serves."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-nodes"

    NodeId = UnicodeAttribute(hash_key=True)
    Hostname = UnicodeAttribute()
    QueueUrl = UnicodeAttribute()
    Worker = UnicodeAttribute()
    # The worker's, as in `domain.versions`; absent: it is older than these numbers.
    Version = _OptionalNumber()
    # When the worker last said that it serves this node, in seconds.
    Heartbeat = NumberAttribute()


class Token(Model):
    """What a bearer token allows. The token itself is stored nowhere."""

    class Meta(_Meta):
        table_name = f"{settings.prefix}-tokens"

    # SHA-256 of the token, in hexadecimal digits.
    Hash = UnicodeAttribute(hash_key=True)
    Name = UnicodeAttribute()
    Role = UnicodeAttribute()
    # The applications that it is bound to; none: it is valid for all.
    Apps: ListAttribute[Any] = ListAttribute(of=UnicodeAttribute)
    MayRunAsRoot = BooleanAttribute()
    CreateTime = NumberAttribute()
    ExpiresAt = NumberAttribute()
    # It may be some minutes old: not every use is written.
    LastUsed = NumberAttribute(null=True)


class AuditByJob(GlobalSecondaryIndex["AuditEntry"]):  # type: ignore[no-untyped-call]
    """What was done to one job, in the order of time."""

    class Meta:
        index_name = "by-job"
        projection = AllProjection()

    JobId = UnicodeAttribute(hash_key=True)
    At = UnicodeAttribute(range_key=True)


class AuditEntry(Model):
    """Who did what, when, from where. Entries are added, never changed. They name fields, never values.

    A partition is a day: it is read newest first, and takes a thousand entries a second, far more than
    there are changes and starts.
    """

    class Meta(_Meta):
        table_name = f"{settings.prefix}-audit"

    # "2026-11-24", UTC
    Day = UnicodeAttribute(hash_key=True)
    # Microseconds since 1970 in 16 digits, "-", and random digits for two at the same time.
    At = UnicodeAttribute(range_key=True)
    Action = UnicodeAttribute()
    # The name of the token that did it; on the command line, the user and the machine.
    Actor = UnicodeAttribute()
    TokenId = UnicodeAttribute(null=True)
    SourceIp = UnicodeAttribute(null=True)
    RequestId = UnicodeAttribute(null=True)
    # The name of the job or, for actions on tokens, of the token.
    Name = UnicodeAttribute()
    AppName = UnicodeAttribute(null=True)
    # The AppName before an edit that changed it.
    MovedFrom = UnicodeAttribute(null=True)
    JobId = UnicodeAttribute(null=True)
    ExecutorId = UnicodeAttribute(null=True)
    # How many containers a start was for.
    Targets = NumberAttribute(null=True)
    # The names of the fields that an edit changed.
    Fields: ListAttribute[Any] = ListAttribute(of=UnicodeAttribute, null=True)
    # Which token was made or revoked: {Id, Role, Apps, MayRunAsRoot}.
    Token: JSONAttribute = JSONAttribute(null=True)
    ExpiresAt = NumberAttribute()
    by_job = AuditByJob()
