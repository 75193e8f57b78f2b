"""What tests do with executions, as the routes do it."""

from typing import Any

from chalicelib.schemas.executions import StartRequest, Target
from chalicelib.services import inspection, starts
from tests.unit.callers import ADMIN


def start(job_id: str, *targets: tuple[str, str]) -> str:
    """Starts a job on these containers of these nodes; returns the ExecutorId."""
    request = StartRequest([Target(container, node) for container, node in targets])
    return starts.start_job(ADMIN, job_id, request).Executors[-1]


def only(job_id: str, executor_id: str) -> dict[str, Any]:
    """The execution's only result."""
    (result,) = inspection.inspect_execution(ADMIN, job_id, executor_id).Result
    return result
