"""The examples of the OpenAPI document: one job, its start, and what became of it."""

from typing import Any

from chalicelib.domain.states import Reason
from chalicelib.schemas.errors import ErrorAnswer
from chalicelib.schemas.executions import ExecutionAnswer, StartRequest
from chalicelib.schemas.jobs import JobAnswer, JobRequest
from chalicelib.schemas.results import (
    CreateFailedResult,
    FinishedResult,
    RunningFailedResult,
    StartingResult,
    UnderWayResult,
)

_JOB_ID = "02de331e-7f0c-4f0a-9d52-6a1f0c6f7d0b"
_EXECUTOR_ID = "1795486603.564290"
_EXEC_ID = "1b7ea21bbd0a"
_TARGET = {"ContainerId": "382ab014ae10", "NodeId": "yb6sgy3wjbhk3ouhgeue6z38e"}
_REQUEST = {
    "AppName": "2048",
    "Name": "Free memory",
    "Cmd": "free -m",
    "User": "root:root",
    "Env": ["LANG=C"],
    "SecretArgs": ["s3cret"],
}
_FINISHED = {
    **_TARGET,
    "Status": "FINISHED",
    "ID": _EXEC_ID,
    "ContainerID": _TARGET["ContainerId"],
    "ExitCode": 0,
    "Running": False,
    "Pid": 6136,
    "ProcessConfig": {
        "tty": False,
        "entrypoint": "free",
        "arguments": ["-m", "******"],
        "privileged": False,
        "user": "root:root",
    },
    "OpenStdin": False,
    "OpenStdout": True,
    "OpenStderr": True,
    "CanRemove": False,
    "DetachKeys": "",
    "StartTime": 1795486603.61,
    "EndTime": 1795486603.7,
    "Output": "Mem: 24106\n",
    "OutputSize": 11,
    "OutputTruncated": False,
}

EXAMPLES: dict[type, dict[str, Any]] = {
    JobRequest: _REQUEST,
    StartRequest: {"Target": [_TARGET]},
    JobAnswer: {
        **_REQUEST,
        "JobId": _JOB_ID,
        "ServiceName": "",
        "Privileged": False,
        "SecretArgs": ["******"],
        "LogBytes": 0,
        "Executors": [_EXECUTOR_ID],
    },
    ExecutionAnswer: {
        "JobId": _JOB_ID,
        "ExecutorId": _EXECUTOR_ID,
        "CreateTime": float(_EXECUTOR_ID),
        "Target": [_TARGET],
        "Result": [_FINISHED],
        "Total": 1,
        "Succeeded": 1,
        "Failed": 0,
    },
    ErrorAnswer: {"id": "job_id_not_found", "message": _JOB_ID},
    StartingResult: {**_TARGET, "Status": "STARTING"},
    UnderWayResult: {**_TARGET, "Status": "RUNNING", "ID": _EXEC_ID, "StartTime": 1795486603.61},
    FinishedResult: _FINISHED,
    CreateFailedResult: {
        **_TARGET,
        "Status": "CREATE_FAILED",
        "E": "No such container: 382ab014ae10",
        "Reason": Reason.CONTAINER_NOT_FOUND,
        "EndTime": 1795486603.6,
    },
    RunningFailedResult: {
        **_TARGET,
        "Status": "RUNNING_FAILED",
        "ID": _EXEC_ID,
        "E": "the engine does not know the exec any more",
        "Reason": Reason.LOST,
        "Output": "",
        "OutputSize": 0,
        "OutputTruncated": False,
    },
}
