"""Put dead letters back in line: one, or all that have failed by now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schema.queue.refusal import refusal
from schema.runtime.connection import Connection
from schema.states import ATTEMPTS_CEILING, Status

_AFRESH = """queued_at = clock_timestamp(),
    attempt_limit = attempt + %(attempts)s,
    worker_id = NULL,
    started_at = NULL,
    finished_at = NULL,
    cancel_requested_at = NULL"""
"""What a redriven order has beside its new ticket. Part of an UPDATE."""

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
    {_AFRESH}
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


@dataclass(frozen=True, slots=True)
class Failed:
    """The orders that had failed `at` a time of the database's, by ticket."""

    order_ids: list[UUID]
    at: datetime


FIND_SECONDS = 600
"""How long it may take to find what has failed: it reads every order."""

_FIND_FAILED = """
SELECT ARRAY (
           SELECT order_id
           FROM orders
           WHERE status = 'failed'
             AND finished_at <= statement_timestamp()
             AND (%(error_prefix)s::text IS NULL OR starts_with(last_error, %(error_prefix)s::text))
           ORDER BY seq, order_id),
       statement_timestamp()
"""


def find_failed(connection: Connection, *, error_prefix: str | None = None) -> Failed:
    """Return what has failed by now, with an error that begins with `error_prefix` if there is one.

    `connection` must autocommit, and wait for a reply for up to `FIND_SECONDS`.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{FIND_SECONDS} s'")
        return Failed(*connection.one(_FIND_FAILED, {"error_prefix": error_prefix}))


LIMIT = 1000
"""Orders that one statement of `redrive_failed` moves at most."""

# The tickets are drawn by name: a DEFAULT would be drawn in the order in which the UPDATE comes by the rows.
_REDRIVE_FAILED = f"""
WITH held AS MATERIALIZED (
    SELECT order_id
    FROM orders
    WHERE order_id = ANY (%(order_ids)s)
      AND status = 'failed'
      AND finished_at <= %(at)s
      AND attempt < {ATTEMPTS_CEILING}
    ORDER BY seq, order_id
    FOR NO KEY UPDATE SKIP LOCKED
),
drawn AS MATERIALIZED (
    SELECT order_id, nextval((SELECT pg_get_serial_sequence('orders', 'seq'))) AS ticket
    FROM held
)
UPDATE orders
SET status = 'pending',
    seq = ticket,
    {_AFRESH}
FROM drawn
WHERE orders.order_id = drawn.order_id
"""


def redrive_failed(connection: Connection, failed: Failed, *, attempts: int) -> Iterator[int]:
    """Return the orders to the end of the line as `redrive` does, in their order; yield how many, in steps.

    Each step moves up to `LIMIT` of them and is committed when it is yielded, if `connection` autocommits. An
    order that somebody has locked, or that has been moved since, even if it has failed again, is skipped.
    """
    for first in range(0, len(failed.order_ids), LIMIT):
        order_ids = failed.order_ids[first : first + LIMIT]
        values = {"order_ids": order_ids, "at": failed.at, "attempts": attempts}
        yield connection.execute(_REDRIVE_FAILED, values).rowcount
