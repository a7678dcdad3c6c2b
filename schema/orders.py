"""Put an order into the line, and look one up."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from schema.errors import OrderNotTakenError
from schema.states import Status
from schema.uuid7 import uuid7


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as a client submits it; `item_ids` keep their order."""

    user_id: str
    item_ids: tuple[str, ...]
    total_amount: Decimal


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands in the database. The columns' comments say what each field means."""

    order_id: UUID
    seq: int
    user_id: str
    item_ids: list[str]
    total_amount: Decimal
    status: Status
    attempt: int
    attempt_limit: int | None
    worker_id: str | None
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    retry_at: datetime | None
    cancel_requested_at: datetime | None
    last_error: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))


_SUBMIT = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
VALUES (%s, %s, %s, %s)
"""


def submit(connection: psycopg.Connection[Any], order: NewOrder) -> UUID:
    """Insert a pending order and return its id. Committed on return if `connection` autocommits.

    Raises `OrderNotTakenError` when a trigger or rule of the user's dropped it.
    """
    order_id = uuid7()
    values = (order_id, order.user_id, list(order.item_ids), order.total_amount)
    if connection.execute(_SUBMIT, values).rowcount != 1:
        raise OrderNotTakenError
    return order_id


_FIND = """
SELECT order_id, seq, user_id, item_ids, total_amount, status, attempt, attempt_limit, worker_id,
       created_at, queued_at, started_at, finished_at, retry_at, cancel_requested_at, last_error
FROM orders
WHERE order_id = %s
"""


def find(connection: psycopg.Connection[Any], order_id: UUID) -> Order | None:
    """Return the order, or None if there is no such order."""
    with connection.cursor(row_factory=class_row(Order)) as cursor:
        return cursor.execute(_FIND, (order_id,)).fetchone()
