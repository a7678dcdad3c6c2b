"""Look orders up by their ids."""

from collections.abc import Iterable
from uuid import UUID

from schema.queue import arrays
from schema.runtime.connection import Connection

SHOWN = """order_id, initcap(status) AS status, user_id, item_ids, total_amount, seq, attempt, attempt_limit,
           worker_id,
           to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
           to_char(queued_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS queued_at,
           to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS started_at,
           to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS finished_at,
           to_char(retry_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS retry_at,
           to_char(cancel_requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
               AS cancel_requested_at,
           last_error"""
"""What is shown of an order: the table's names, times in UTC, `Pending` for pending. Part of a SELECT."""

_SHOW = f"""
SELECT order_id, row_to_json(shown)::text
FROM (
    SELECT {SHOWN}
    FROM orders
    WHERE order_id = ANY (%s::uuid[])
) AS shown
"""


def show(connection: Connection, order_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Return each of these orders that there is as a JSON object.

    It has what `SHOWN` names. Made by the database: to take the rows apart in Python and put them
    together again costs more than the rest of the question.
    """
    return dict(connection.execute(_SHOW, (arrays.of_uuids(order_ids),), binary=True).fetchall())
