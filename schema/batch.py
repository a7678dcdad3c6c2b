"""Put many orders into the line at once: all of them, in their order, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

import psycopg

from schema import idempotency
from schema.errors import OrderNotTakenError
from schema.idempotency import Submitted
from schema.orders import NewOrder
from schema.uuid7 import run_from, uuid7


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """The orders that a batch became, in its order. `replayed` means that an earlier call placed them."""

    order_ids: list[UUID]
    replayed: bool


def submit_batch(
    connection: psycopg.Connection[Any], orders: Sequence[NewOrder], *, key: str | None = None
) -> SubmittedBatch:
    """Insert pending orders, their tickets in the same order, unless `key` has placed them before.

    One transaction, committed on return if `connection` autocommits. Raises `KeyReusedError` and
    `OrderNotTakenError` as `idempotency.submit_once` does; then nothing is stored.
    """
    with connection.transaction():
        first = Submitted(uuid7(), replayed=False)
        if key is not None:
            first = idempotency.remember(connection, orders, key=key)
        order_ids = list(islice(run_from(first.order_id), len(orders)))
        if not first.replayed and copy(connection, order_ids, orders) != len(orders):
            raise OrderNotTakenError
    return SubmittedBatch(order_ids, replayed=first.replayed)


_COPY = """
COPY orders (order_id, user_id, item_ids, total_amount)
FROM STDIN
"""


def copy(connection: psycopg.Connection[Any], order_ids: Iterable[UUID], orders: Iterable[NewOrder]) -> int:
    """Insert orders under their ids, tickets rising in their order; tell how many the database took.

    There may be more ids than orders.
    """
    with connection.cursor() as cursor:
        with cursor.copy(_COPY) as rows:
            for order_id, order in zip(order_ids, orders, strict=False):
                rows.write_row((order_id, order.user_id, list(order.item_ids), order.total_amount))
        return cursor.rowcount
