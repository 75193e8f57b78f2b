"""The tables' connections to DynamoDB."""

from chalicelib.store.models import (
    Counts,
    Execution,
    Node,
    Output,
    Result,
    Segment,
    TargetPart,
    Wishes,
)


def connect() -> None:
    """Makes the clients of the tables that several threads will use.

    PynamoDB makes a client when it is first needed. Many threads at that moment make many, of 10 MB each.
    """
    for model in (Execution, TargetPart, Result, Output, Counts, Segment, Wishes, Node):
        _ = model._get_connection().connection.client
