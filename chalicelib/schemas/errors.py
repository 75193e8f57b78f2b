"""The body of a refusal."""

from msgspec import Struct


class ErrorAnswer(Struct):
    """Every refusal's body: the id is for programs, the message for people."""

    id: str
    message: str
