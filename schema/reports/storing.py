"""Find out whether orders can be stored: try it, in a transaction that is rolled back."""

from collections.abc import Iterator
from contextlib import contextmanager

from schema.errors import StatementRefusedError
from schema.queue.submit import RULE_IN_THE_WAY
from schema.runtime.connection import Connection

LOCK_SECONDS = 0.5
"""How long a try waits for a table at most: longer than a migration's own tries keep others waiting."""

_BEGIN = f"""
SELECT set_config('lock_timeout', '{round(LOCK_SECONDS * 1000)}', true),
       row_security_active(to_regclass('orders'))
"""

# An order that the table has taken before passes the user's own constraints, triggers and policies most
# likely. When none is to be seen, one is made up.
_INSERT = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), user_id, item_ids, total_amount
FROM (
    (
        SELECT user_id, item_ids, total_amount
        FROM orders
        ORDER BY order_id DESC
        LIMIT 1
    )
    UNION ALL
    VALUES ('readyz', '{readyz}'::text[], 0)
) AS known
LIMIT %s
RETURNING order_id
"""

_INSERT_KEY = """
INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, seed)
SELECT idempotency_key, order_id, order_hash, seed
FROM idempotency_keys
LIMIT 0
ON CONFLICT (idempotency_key) DO NOTHING
"""


@contextmanager
def trial(connection: Connection) -> Iterator[bool]:
    """Yield in a transaction that stores nothing whether row level security judges this role's orders.

    No statement in it waits longer than `LOCK_SECONDS` for a lock.
    """
    with connection.transaction(force_rollback=True):
        (_, is_secured) = connection.one(_BEGIN)
        yield bool(is_secured)


def insert_nothing(connection: Connection) -> None:
    """Insert no order and no key. Raises `DatabaseError` when any order would be kept out.

    The server checks privileges and tables, waits for their locks and fires the triggers of statements, all
    without a row, a ticket or a number of a transaction.
    """
    connection.execute(_INSERT_KEY)
    try:
        connection.execute(_INSERT, [0])
    except StatementRefusedError as error:
        if error.sqlstate != RULE_IN_THE_WAY:  # such orders are stored by another statement
            raise


def insert_one(connection: Connection) -> None:
    """Insert an order, which needs room and has to pass policies. It costs a ticket, and leaves a dead row.

    Raises `DatabaseError`, unless the order is refused for what is in it: another one may pass.
    """
    try:
        connection.execute(_INSERT, [1])
    except StatementRefusedError as error:
        if error.is_forbidden:
            raise
