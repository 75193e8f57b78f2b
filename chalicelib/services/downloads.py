"""A target's log, as its readers get it."""

from datetime import UTC, datetime

from msgspec import Struct

from chalicelib import store
from chalicelib.clients import logs
from chalicelib.domain.access import Caller
from chalicelib.domain.errors import ContainerNotFound
from chalicelib.domain.states import TERMINAL, Status
from chalicelib.services import inspection, outcomes

# A log up to this size is in the answer itself: Lambda answers up to 6 MB, and base64 makes a log a
# third longer.
DIRECT_BYTES = 4 * 1024**2
_WITHOUT_LOG = (Status.STARTING, Status.CREATE_FAILED)


class Log(Struct):
    """A target's log: its content, or None if it is long; and a link to it, if S3 has anything of it."""

    filename: str
    content: bytes | None
    link: str = ""


def read_log(caller: Caller, job_id: str, executor_id: str, container_id: str) -> Log:
    """A target's log so far. If the target failed before it ran, its log is the text of its `E`.

    Raises JobNotFound, ExecutionNotFound, ContainerNotFound.
    """
    execution = inspection.get_execution(caller, job_id, executor_id)
    found = (part.find(container_id) for part in store.targets.get_parts(execution))
    target = next(filter(None, found), None)
    if target is None:
        raise ContainerNotFound(container_id)
    result = outcomes.get_result(execution, target)
    name = _filename(executor_id, container_id)
    key = logs.log_key(job_id, executor_id, container_id)
    # If an output is incomplete, the log may have more of it than the result says.
    is_known = result.Status in TERMINAL and not result.OutputIncomplete
    if result.Status in _WITHOUT_LOG or (is_known and not result.OutputSize):
        return Log(name, (result.E or "").encode())
    kept = store.outputs.get_end(result)
    if is_known and result.OutputSize == len(kept):
        # A short text is nowhere else. Other bytes are in S3 too: not every client can have them from us.
        return Log(name, kept, logs.make_link(key, name))
    is_long = is_known and result.OutputSize > DIRECT_BYTES
    content = None if is_long else logs.read(key, DIRECT_BYTES)
    if content == b"":
        # If a log should be there and is not, we do not call it empty: the caller gets the link.
        content = None if is_known else (result.E or "").encode()
    return Log(name, content, logs.make_link(key, name))


def _filename(executor_id: str, container_id: str) -> str:
    started = datetime.fromtimestamp(float(executor_id), UTC)
    return f"job-container-{container_id}-{started:%Y-%m-%d-%H:%M:%S}.log"
