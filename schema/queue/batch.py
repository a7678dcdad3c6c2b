"""Put many orders into the line at once: all of them, in their order, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from schema.errors import OrderNotTakenError
from schema.order import NewOrder
from schema.queue import arrays, idempotency
from schema.runtime.connection import Connection
from schema.uuid7 import Series


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """The orders that a batch became, in its order. `replayed` means that an earlier call placed them."""

    order_ids: list[UUID]
    replayed: bool


def submit_batch(
    connection: Connection, orders: Sequence[NewOrder], *, key: str | None = None
) -> PlacedBatch:
    """Insert pending orders, their tickets in the same order, unless `key` has placed them before.

    One transaction, committed on return if `connection` autocommits. Raises `KeyReusedError` and
    `OrderNotTakenError` as `idempotency.submit_once` does; then nothing is stored.
    """
    with connection.transaction():
        if key is None:
            remembered = idempotency.Remembered(Series.new(), replayed=False)
        else:
            remembered = idempotency.remember(connection, orders, key=key)
        numbers = list(islice(remembered.numbers, len(orders)))
        if not remembered.replayed and copy(connection, orders, numbers=numbers) != len(orders):
            raise OrderNotTakenError
    return PlacedBatch([UUID(int=number) for number in numbers], replayed=remembered.replayed)


_LINES = 500
"""Lines in one message."""

_COPY = """
COPY orders (order_id, user_id, item_ids, total_amount)
FROM STDIN
"""


def copy(connection: Connection, orders: Iterable[NewOrder], *, numbers: Iterable[int]) -> int:
    """Insert orders with rising tickets, and `numbers` as their ids; return how many the database took."""
    lines = map(_line, numbers, orders)
    blocks = iter(lambda: "".join(islice(lines, _LINES)), "")
    return connection.copy_in(_COPY, blocks)


def _line(number: int, order: NewOrder) -> str:
    """Return an order as COPY's text format has it.

    https://www.postgresql.org/docs/current/sql-copy.html. psycopg's own rows cost four times as much.
    """
    item_ids = _escaped(arrays.of_texts(order.item_ids))
    return f"{number:032x}\t{_escaped(order.user_id)}\t{item_ids}\t{order.total_amount}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")
