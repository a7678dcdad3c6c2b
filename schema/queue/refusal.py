"""Say why a person's move of one order changed nothing."""

from typing import Any
from uuid import UUID

import psycopg

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError
from schema.states import Status

_STATUS = """
SELECT status
FROM orders
WHERE order_id = %(order_id)s
"""


def refusal(
    connection: psycopg.Connection[Any], order_id: UUID, move: str, *, movable: frozenset[Status]
) -> OrderNotFoundError | IllegalMoveError | OrderLockedError:
    """Build the error for a move of one order that changed nothing."""
    row = connection.execute(_STATUS, {"order_id": order_id}).fetchone()
    if row is None:
        return OrderNotFoundError(order_id)
    if Status(row[0]) in movable:
        return OrderLockedError(order_id)
    return IllegalMoveError(order_id, move, status=row[0])
