"""Complete one order inside a handler's own transaction, so that both commit together or not at all."""

from enum import Enum, auto
from typing import Any

from schema.order import Fence
from schema.runtime.connection import DriverConnection


class ClaimState(Enum):
    """How a claim stands in the database."""

    COMPLETED = auto()
    HELD = auto()
    LOST = auto()


_COMPLETE = """
WITH held AS MATERIALIZED (
    SELECT order_id
    FROM orders
    WHERE order_id = %(order_id)s
      AND attempt = %(attempt)s
      AND worker_id = %(worker_id)s
      AND status = 'processing'
      AND (%(mark)s::text IS NULL OR current_setting(%(mark)s, true) = 'set')
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders
SET status = 'completed',
    finished_at = clock_timestamp()
WHERE order_id = ANY (ARRAY (SELECT order_id FROM held))
"""


def complete(connection: DriverConnection, worker_id: str, *, fence: Fence, mark: str | None = None) -> bool:
    """Complete the claim in the open transaction of `connection`; the caller commits.

    If there is a `mark`, only in a transaction that has set it to 'set'. Returns False, nothing written, if
    it has not, if the claim is lost, or if somebody has the row locked right now: `claim_state` tells of the
    claim.
    """
    return connection.execute(_COMPLETE, {**_names(worker_id, fence), "mark": mark}).rowcount == 1


_CLAIM_STATE = """
SELECT status
FROM orders
WHERE order_id = %(order_id)s
  AND attempt = %(attempt)s
  AND worker_id = %(worker_id)s
"""


def claim_state(connection: DriverConnection, worker_id: str, *, fence: Fence) -> ClaimState:
    """Tell whether the claim is completed, still held, or lost."""
    row = connection.execute(_CLAIM_STATE, _names(worker_id, fence)).fetchone()
    if row is None:
        return ClaimState.LOST
    return {"completed": ClaimState.COMPLETED, "processing": ClaimState.HELD}.get(row[0], ClaimState.LOST)


_IS_FREE = """
SELECT
FROM orders
WHERE order_id = %(order_id)s
  AND attempt = %(attempt)s
  AND worker_id = %(worker_id)s
  AND status = 'processing'
FOR NO KEY UPDATE SKIP LOCKED
"""


def is_free(connection: DriverConnection, worker_id: str, *, fence: Fence) -> bool:
    """Tell whether the claim is held and no open transaction, such as a broken one, has its row."""
    return connection.execute(_IS_FREE, _names(worker_id, fence)).rowcount == 1


def _names(worker_id: str, fence: Fence) -> dict[str, Any]:
    return {"worker_id": worker_id, "order_id": fence.order_id, "attempt": fence.attempt}
