"""Put a dead letter back in line."""

from uuid import UUID

from schema.queue.refusal import refusal
from schema.runtime.connection import Connection
from schema.states import ATTEMPTS_CEILING, Status

_REDRIVE = f"""
WITH held AS MATERIALIZED (
    SELECT order_id
    FROM orders
    WHERE order_id = %(order_id)s
      AND status = 'failed'
      AND attempt < {ATTEMPTS_CEILING}
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders
SET status = 'pending',
    seq = DEFAULT,
    queued_at = clock_timestamp(),
    attempt_limit = attempt + %(attempts)s,
    worker_id = NULL,
    started_at = NULL,
    finished_at = NULL,
    cancel_requested_at = NULL
WHERE order_id = ANY (ARRAY (SELECT order_id FROM held))
"""


def redrive(connection: Connection, order_id: UUID, *, attempts: int) -> None:
    """Return a failed order to the end of the line with `attempts` new ones.

    Raises `OrderNotFoundError`, `IllegalMoveError` when it has not failed, and `OrderLockedError` when
    somebody holds its row right now.
    """
    written = connection.execute(_REDRIVE, {"order_id": order_id, "attempts": attempts}).rowcount
    if not written:
        raise refusal(connection, order_id, "redrive", movable=frozenset({Status.FAILED}))
