"""Say why a person's move of one order changed nothing."""

from uuid import UUID

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError
from schema.runtime.connection import Connection
from schema.states import Status

_STATUS = """
SELECT status
FROM orders
WHERE order_id = %(order_id)s
"""


def refusal(
    connection: Connection, order_id: UUID, move: str, *, movable: frozenset[Status]
) -> OrderNotFoundError | IllegalMoveError | OrderLockedError:
    """Build the error for a move of one order that changed nothing."""
    row = connection.execute(_STATUS, {"order_id": order_id}).fetchone()
    if row is None:
        return OrderNotFoundError(order_id)
    if Status(row[0]) in movable:
        return OrderLockedError(order_id)
    return IllegalMoveError(order_id, move, status=row[0])
