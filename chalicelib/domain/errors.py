"""The domain's errors. Each has an id for programs, a message for people, and an HTTP status."""


class AppjobsError(Exception):
    """A request that cannot be fulfilled; `id` and `status` are fixed by its class."""

    id = "internal_error"
    status = 500
    # After this time, the same request may succeed; None if it will not do so by itself.
    retry_seconds: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(AppjobsError):
    """The request is wrong; the message names the field, what is wrong and what would be right."""

    id = "invalid_request"
    status = 400


class UnsupportedType(AppjobsError):
    """The body's type is not JSON; the message says which it is."""

    id = "invalid_request"
    status = 415


class NameTaken(AppjobsError):
    """Another job of the application has this name; the message is the name."""

    id = "jobs_name_duplicated_error"
    status = 400


class Unauthorized(AppjobsError):
    """The request has no token; the message says how to send one."""

    id = "unauthorized"
    status = 401


class Forbidden(AppjobsError):
    """The token does not allow this; the message says which right is missing."""

    id = "forbidden"
    status = 403


class JobNotFound(AppjobsError):
    """No such job; the message is the JobId."""

    id = "job_id_not_found"
    status = 404


class ExecutionNotFound(AppjobsError):
    """No such execution of the job; the message is the ExecutorId."""

    id = "executor_id_not_found"
    status = 404


class ContainerNotFound(AppjobsError):
    """The container is not a target of the execution; the message is the ContainerId."""

    id = "container_id_not_found"
    status = 404


class LogNotReady(AppjobsError):
    """A long log is not one object yet, which its reader needs; the message says what to do."""

    id = "log_not_ready"
    status = 503
    retry_seconds = 5


class SecretsUnreadable(AppjobsError):
    """KMS refuses to open a job's secrets."""


class TryAgain(AppjobsError):
    """Others kept changing the same items, and we have no more tries left."""


def require(holds: bool, message: str) -> None:
    """Raises InvalidRequest with the message unless it holds."""
    if not holds:
        raise InvalidRequest(message)
