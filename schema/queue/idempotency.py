"""Submit an order once under a key of the client's, however often it is sent.

One statement inserts key and order (for a batch, one transaction), so that there is never one without the
other. A second call with the same key waits for the first, and returns its order.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import NamedTuple
from uuid import UUID

from schema.errors import DatabaseUnavailableError, KeyReusedError, OrderNotTakenError, StatementRefusedError
from schema.order import NewOrder, Placed
from schema.queue import arrays
from schema.runtime.connection import Connection
from schema.uuid7 import Series, uuid7

LIMIT = 10_000
"""Keys that one prune deletes at most."""

_TRIES = 3


def submit_once(connection: Connection, order: NewOrder, *, key: str) -> Placed:
    """Insert a pending order, unless `key` has placed it before; return its id.

    One statement for a new key, committed on return if `connection` autocommits. It waits for another
    transaction that is using the key; the ticket is drawn after the wait. Raises `KeyReusedError` when
    the key came with another order before, and `OrderNotTakenError` when a trigger or rule of the user's
    dropped the order: then the key is not stored either.
    """
    order_id, order_hash = uuid7(), _hash(_fields(order))
    found = _once(
        connection,
        lambda: _insert(connection, order, order_id=order_id, key=key, order_hash=order_hash),
        key=key,
    )
    if found is None:
        return Placed(order_id, replayed=False)
    if found.order_hash != order_hash:
        raise KeyReusedError
    return Placed(found.order_id, replayed=True)


_REMEMBER = """
INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, seed)
VALUES (%s, %s, %s, %s)
ON CONFLICT (idempotency_key) DO NOTHING
"""


class Remembered(NamedTuple):
    """The numbers of a batch's ids, and more. `replayed` means that an earlier call placed the batch."""

    numbers: Iterable[int]
    replayed: bool


def remember(connection: Connection, orders: Sequence[NewOrder], *, key: str) -> Remembered:
    """Store `key` for a batch, in the transaction in which the caller inserts it unless it is a replay.

    Waits and raises as `submit_once` does.
    """
    series, fields = Series.new(), [_fields(order) for order in orders]
    # A program that knows no seed finds another hash, and refuses: it would count on from the first id.
    order_hash = _hash({"seeded": fields})
    values = (key, UUID(int=next(iter(series))), order_hash, series.seed)
    found = _once(connection, lambda: connection.execute(_REMEMBER, values).rowcount == 1, key=key)
    if found is None:
        return Remembered(series, replayed=False)
    if found.order_hash != (_hash(fields) if found.seed is None else order_hash):
        raise KeyReusedError
    first = found.order_id.int
    return Remembered(count(first) if found.seed is None else Series(first >> 80, found.seed), replayed=True)


class _Found(NamedTuple):
    order_id: UUID
    order_hash: bytes
    seed: bytes | None


def _once(connection: Connection, place: Callable[[], bool], *, key: str) -> _Found | None:
    """Return what the key has stood for before, None if `place` has stored it now."""
    for _ in range(_TRIES):
        if place():
            return None
        # A second statement, because the first can't see what was committed while it waited.
        found = connection.execute(_FIND, {"key": key}).fetchone()
        if found is not None:
            return _Found(*found)
    raise DatabaseUnavailableError("the idempotency key is deleted as often as it is asked for")


def _fields(order: NewOrder) -> tuple[str, tuple[str, ...], str]:
    return (order.user_id, order.item_ids, f"{order.total_amount:.2f}")


def _hash(submitted: object) -> bytes:
    """Return the SHA-256 of what was ordered, however it was written: JSON keeps the fields apart."""
    return hashlib.sha256(json.dumps(submitted).encode()).digest()


# `keyless` fails on purpose when a trigger dropped the order: its NULL undoes the statement, key included.
_INSERT = """
WITH new_key AS (
    INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash)
    VALUES (%(key)s, %(order_id)s, %(order_hash)s)
    ON CONFLICT (idempotency_key) DO NOTHING
    RETURNING idempotency_key, order_id, order_hash
),
placed AS (
    INSERT INTO orders (order_id, user_id, item_ids, total_amount)
    SELECT order_id, %(user_id)s, %(item_ids)s, %(total_amount)s
    FROM new_key
    RETURNING order_id
),
keyless AS (
    INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash)
    SELECT idempotency_key, NULL, order_hash
    FROM new_key
    WHERE NOT EXISTS (SELECT FROM placed WHERE placed.order_id = new_key.order_id)
)
SELECT order_id
FROM placed
"""


def _insert(connection: Connection, order: NewOrder, *, order_id: UUID, key: str, order_hash: bytes) -> bool:
    """Insert key and order, or nothing if the key is there already; return whether they are new.

    Raises `OrderNotTakenError` when there would be a key without its order.
    """
    values = {
        "key": key,
        "order_id": order_id,
        "order_hash": order_hash,
        "user_id": order.user_id,
        "item_ids": arrays.of_texts(order.item_ids),
        "total_amount": order.total_amount,
    }
    try:
        return connection.execute(_INSERT, values).rowcount == 1
    except StatementRefusedError as error:
        if (error.table, error.column) == ("idempotency_keys", "order_id"):
            raise OrderNotTakenError from error
        raise


_FIND = """
SELECT order_id, order_hash, seed
FROM idempotency_keys
WHERE idempotency_key = %(key)s
"""

# 24 hours and not a day: where the clocks change, a day may have 23. In a subquery, because a volatile
# function can't be looked up in an index.
_PRUNE = f"""
WITH old AS MATERIALIZED (
    SELECT idempotency_key
    FROM idempotency_keys
    WHERE created_at < (SELECT clock_timestamp() - INTERVAL '24 hours')
    ORDER BY created_at, idempotency_key
    LIMIT {LIMIT}
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys
WHERE idempotency_key = ANY (ARRAY (SELECT idempotency_key FROM old))
"""


def prune(connection: Connection) -> int:
    """Delete up to `LIMIT` keys that are older than 24 hours, the oldest first; return how many."""
    return connection.execute(_PRUNE).rowcount
