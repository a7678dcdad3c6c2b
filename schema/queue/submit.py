"""Put orders into the line: the plain INSERTs, of one order and of those that arrive at the same moment.

Four statements insert orders; the table's defaults give each its ticket, state and times:

===========  ==========================  =================================================================
coalesced    `submit_all`                Orders over HTTP without a key: those that wait at one moment share
                                         one statement and one commit, and fail together. It waits only
                                         `LOCK_SECONDS` for a row's lock, and allows no rule on the table.
single       `submit`                    Each order of a coalesced statement that the database refused: it
                                         waits and fails alone, and rules are allowed.
keyed        `idempotency.submit_once`   An order with an `Idempotency-Key`: stores the key with the order,
                                         and waits for another transaction that stores the same key.
COPY         `batch.copy`                A batch or a file, where many orders succeed or fail together: the
                                         cheapest for each, and tickets rise in their order.
===========  ==========================  =================================================================
"""

from collections.abc import Sequence
from uuid import UUID

from schema.errors import OrderNotTakenError
from schema.order import NewOrder
from schema.queue import arrays
from schema.runtime.connection import Connection
from schema.uuid7 import uuid7

_SUBMIT = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
VALUES (%s, %s, %s, %s)
"""


def submit(connection: Connection, order: NewOrder) -> UUID:
    """Insert a pending order and return its id. Committed on return if `connection` autocommits.

    Raises `OrderNotTakenError` when a trigger or rule of the user's dropped it.
    """
    order_id = uuid7()
    values = (order_id, order.user_id, arrays.of_texts(order.item_ids), order.total_amount)
    if connection.execute(_SUBMIT, values).rowcount != 1:
        raise OrderNotTakenError
    return order_id


RULE_IN_THE_WAY = "0A000"
"""The SQLSTATE (feature_not_supported) of an INSERT with RETURNING into a table that has a rule for it."""

LOCK_SECONDS = 0.1
"""How long a statement that stores several orders waits for a lock that one of its rows needs."""

# A setting for this transaction alone, made before the first row is; behind a pooler a session is shared.
_SUBMIT_ALL = f"""
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT order_id, user_id, item_ids::text[], total_amount
FROM (SELECT set_config('lock_timeout', '{round(LOCK_SECONDS * 1000)}', true)) AS setting,
     unnest(%s::uuid[], %s::text[], %s::text[], %s::numeric[])
         AS new (order_id, user_id, item_ids, total_amount)
RETURNING order_id
"""


def submit_all(connection: Connection, orders: Sequence[NewOrder]) -> list[UUID | None]:
    """Insert pending orders and return their ids; None for one that a trigger of the user's dropped.

    One statement, committed on return if `connection` autocommits. `LockTimeoutError` is raised when one of
    them had to wait for `LOCK_SECONDS`, by a foreign key or trigger of the user's, but not for a lock on the
    table; `StatementRefusedError` with `RULE_IN_THE_WAY` when there is a rule for it.
    """
    order_ids = [uuid7() for _ in orders]
    values = (
        arrays.of_uuids(order_ids),
        arrays.of_texts([order.user_id for order in orders]),
        arrays.of_texts([arrays.of_texts(order.item_ids) for order in orders]),
        arrays.of_numbers([order.total_amount for order in orders]),
    )
    taken: list[UUID] = [order_id for (order_id,) in connection.execute(_SUBMIT_ALL, values, binary=True)]
    if len(taken) == len(orders):
        return [*taken]  # which a trigger of the user's may have changed
    return [order_id if order_id in taken else None for order_id in order_ids]
