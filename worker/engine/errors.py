"""What can go wrong with an engine. Errors of docker and of the connection become one of these."""

from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests

from chalicelib.domain.states import Reason


class Refusal(Exception):
    """The engine answered that it will not do what we asked, or cannot."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownExec(Exception):
    """The engine does not know this exec: it has forgotten the exec, or its container."""


class AlreadyStarted(Exception):
    """The exec was started before. Nobody gets its output a second time."""


class Unreachable(Exception):
    """The engine did not answer."""


class OutputCut(Exception):
    """The stream of the output broke off in the middle."""


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raises Refusal or Unreachable instead of docker's errors."""
    try:
        yield
    except docker.errors.APIError as error:
        raise Refusal(_reason(error), str(error.explanation or error)) from None
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise Unreachable(str(error)) from error


def _reason(error: docker.errors.APIError) -> Reason:
    if error.status_code == 404:
        return Reason.CONTAINER_NOT_FOUND
    if error.status_code == 409:
        paused = "paused" in str(error.explanation)
        return Reason.CONTAINER_PAUSED if paused else Reason.CONTAINER_NOT_RUNNING
    return Reason.ENGINE_ERROR
