"""Withdraw an order: at once while it waits, by request while it is being worked on."""

from uuid import UUID

from schema.queue.refusal import refusal
from schema.runtime.connection import Connection
from schema.states import FINAL, Status

_CANCEL = """
WITH held AS MATERIALIZED (
    SELECT order_id
    FROM orders
    WHERE order_id = %(order_id)s
      AND status IN ('pending', 'retrying', 'processing')
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders
SET status = CASE status WHEN 'processing' THEN 'processing' ELSE 'cancelled' END,
    finished_at = CASE status WHEN 'processing' THEN NULL ELSE clock_timestamp() END,
    retry_at = NULL,
    cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp())
WHERE order_id = ANY (ARRAY (SELECT order_id FROM held))
RETURNING status
"""


def cancel(connection: Connection, order_id: UUID) -> Status:
    """Cancel the order and return its state: cancelled, or processing with the request noted.

    A processing order then ends cancelled instead of returning to the line; a completion that commits
    first wins. Raises `OrderNotFoundError`, `IllegalMoveError` when it is in a final state, and
    `OrderLockedError` when somebody holds its row right now.
    """
    row = connection.execute(_CANCEL, {"order_id": order_id}).fetchone()
    if row is not None:
        return Status(row[0])
    raise refusal(connection, order_id, "cancel", movable=frozenset(Status) - FINAL)
