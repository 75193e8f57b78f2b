"""The shapes of a target's result: one for each status."""

from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from chalicelib.domain.states import Reason
from chalicelib.schemas.values import Time


class _Result(TypedDict):
    ContainerId: str
    NodeId: str


class StartingResult(_Result):
    """Accepted; no worker has taken the target up yet."""

    Status: Literal["STARTING"]


class UnderWayResult(_Result):
    """The engine knows the command, or runs it."""

    Status: Literal["CREATED", "RUNNING"]
    ID: str
    StartTime: NotRequired[Time]


class ProcessConfig(TypedDict):
    """The command as the engine has it."""

    entrypoint: str
    arguments: Annotated[list[str], Meta(description="Secret arguments are masked.")]
    tty: bool
    privileged: NotRequired[bool]
    user: NotRequired[str]


class Dropped(TypedDict):
    """What a log that became too long lacks."""

    Bytes: Annotated[int, Meta(ge=1, description="This many bytes are missing.")]
    After: Annotated[int, Meta(ge=1, description="After this many bytes of the log.")]


class _Output(_Result):
    Output: Annotated[str, Meta(description="The end of stdout and stderr as they came.")]
    OutputSize: Annotated[int, Meta(ge=0, description="Bytes of the whole log.")]
    OutputTruncated: Annotated[bool, Meta(description="Output is only the end.")]
    OutputIncomplete: NotRequired[
        Annotated[bool, Meta(description="Some of the output may be missing, also from the log.")]
    ]
    OutputDropped: NotRequired[Dropped]
    StartTime: NotRequired[Time]
    EndTime: NotRequired[Time]


class FinishedResult(_Output):
    """The engine reported an exit code; all fields of its own exec inspect are here too."""

    Status: Literal["FINISHED"]
    ID: str
    ContainerID: str
    ExitCode: Annotated[int, Meta(description="0 is success, all else is failure.")]
    Running: bool
    Pid: int
    ProcessConfig: ProcessConfig
    OpenStdin: bool
    OpenStdout: bool
    OpenStderr: bool
    CanRemove: bool
    DetachKeys: str
    ArgumentsTruncated: NotRequired[
        Annotated[bool, Meta(description="The arguments were emptied to keep the answer short.")]
    ]


class CreateFailedResult(_Result):
    """The command never ran."""

    Status: Literal["CREATE_FAILED"]
    E: Annotated[str, Meta(description="What went wrong, for people.")]
    Reason: Reason
    EndTime: NotRequired[Time]


class RunningFailedResult(_Output):
    """How the command ended is not known; it may have run."""

    Status: Literal["RUNNING_FAILED"]
    E: Annotated[str, Meta(description="What went wrong, for people.")]
    Reason: Reason
    ID: str


RESULTS = (
    StartingResult,
    UnderWayResult,
    FinishedResult,
    CreateFailedResult,
    RunningFailedResult,
)
