"""Put retrying orders back in line when their backoff is over."""

from schema.runtime.connection import Connection

LIMIT = 1000
"""Orders that one call returns at most."""

RETURN_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT order_id
    FROM orders
    WHERE retry_at <= (SELECT clock_timestamp())
    ORDER BY retry_at
    LIMIT {LIMIT}
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders
SET status = 'pending',
    queued_at = clock_timestamp(),
    retry_at = NULL
WHERE order_id = ANY (ARRAY (SELECT order_id FROM due))
  AND status = 'retrying'
"""


def return_due(connection: Connection) -> int:
    """Put up to `LIMIT` due orders back to their old places in line; return how many. Any worker may."""
    return connection.execute(RETURN_DUE).rowcount
