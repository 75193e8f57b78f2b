"""The tables' connections to DynamoDB."""

from chalicelib.store.models import Execution, Node, Result


def connect() -> None:
    """Makes the clients of those tables that several threads are about to use.

    PynamoDB makes one when it is first needed: many threads at that moment make as many, of 10 MB each.
    """
    for model in (Execution, Result, Node):
        _ = model._get_connection().connection.client
