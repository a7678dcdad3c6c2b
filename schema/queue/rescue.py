"""Find dead workers and return their orders.

Any worker may do it; all of it is bounded and waits for no lock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from schema.queue.endings import MOVE, NEXT_STATE
from schema.runtime.connection import Connection
from schema.states import Status

SESSION_GRACE_SECONDS = 2.0
"""How long a worker's session lock must have been free: a living one takes it again within a second."""

UNDECIDED_MILLISECONDS = 1000
"""How long a caller may keep its transaction open after it declared: it holds locks on the suspects."""

LIMIT = 1000
"""Orders that one sweep moves at most."""

_DECLARE_DEAD = f"""
WITH now AS MATERIALIZED (
    SELECT clock_timestamp() AS at,
           LEAST(%(watched_seconds)s, EXTRACT(epoch FROM clock_timestamp() - pg_postmaster_start_time()))
               AS watched_seconds,
           set_config('idle_in_transaction_session_timeout', '{UNDECIDED_MILLISECONDS}', true)
),
sessions AS MATERIALIZED (
    SELECT (classid::bigint << 32) | objid::bigint AS session_key
    FROM pg_locks
    WHERE locktype = 'advisory'
      AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND granted
),
suspects AS MATERIALIZED (
    SELECT worker_id, now.at,
           lease_seconds < %(running_seconds)s
           AND heartbeat_at + make_interval(secs => lease_seconds) < now.at AS lease_over
    FROM workers, now
    WHERE dead_at IS NULL
      AND lease_seconds < now.watched_seconds
      AND ((lease_seconds < %(running_seconds)s
            AND heartbeat_at + make_interval(secs => lease_seconds) < now.at)
           OR (session_key IS NOT NULL AND session_key <> ALL (ARRAY (SELECT session_key FROM sessions))))
    ORDER BY worker_id
    LIMIT 100
    FOR NO KEY UPDATE OF workers SKIP LOCKED
)
UPDATE workers
SET session_lost_at = COALESCE(session_lost_at, at),
    dead_at = CASE
                  WHEN lease_over OR session_lost_at <= at - INTERVAL '{SESSION_GRACE_SECONDS} seconds'
                  THEN clock_timestamp()
              END
FROM suspects
WHERE workers.worker_id = suspects.worker_id
RETURNING workers.worker_id,
          dead_at,
          EXTRACT(epoch FROM session_lost_at - at)::double precision + {SESSION_GRACE_SECONDS}
"""


@dataclass(frozen=True, slots=True)
class Declared:
    """The ids of the `dead`, and in how many seconds the next suspected worker will be dead."""

    dead: list[str]
    next_seconds: float | None


def declare_dead(
    connection: Connection, *, watched_seconds: float, running_seconds: float = math.inf
) -> Declared:
    """Declare dead the workers whose lease has run out or whose session has been gone for long enough.

    `watched_seconds` says how long the caller has been able to see this server. A worker with a longer lease
    is not judged: after a restart or a failover living workers need time to be heard again. A process that
    has run for `running_seconds` only may be the first that found a new server. Until it has run for a lease
    it judges by the sessions alone, which living workers take again within a second.

    In an open transaction the server ends the caller's session after `UNDECIDED_MILLISECONDS`: no other
    process can declare the same workers dead meanwhile.
    """
    rows = connection.execute(
        _DECLARE_DEAD, {"watched_seconds": watched_seconds, "running_seconds": running_seconds}
    ).fetchall()
    return Declared(
        dead=[worker_id for worker_id, dead_at, _ in rows if dead_at is not None],
        next_seconds=min((seconds for _, dead_at, seconds in rows if dead_at is None), default=None),
    )


SWEEP = f"""
WITH dead AS MATERIALIZED (
    SELECT worker_id,
           COALESCE(oldest_claim_at, '-infinity') AS first_claim_at,
           dead_at + make_interval(secs => 2 * lease_seconds) AS last_claim_at
    FROM workers
    WHERE dead_at IS NOT NULL
      AND swept_at IS NULL
    ORDER BY dead_at
    LIMIT {LIMIT}
),
held AS MATERIALIZED (
    SELECT orders.*
    FROM dead
    CROSS JOIN LATERAL (
        SELECT orders.order_id, orders.attempt, orders.worker_id, orders.seq, orders.queued_at,
               orders.started_at, outcome, error, retry_seconds,
               {NEXT_STATE}
        FROM orders
        CROSS JOIN (
            VALUES ('rescued', 'worker ' || dead.worker_id || ' died', 0.0::double precision)
        ) AS ending (outcome, error, retry_seconds)
        WHERE orders.worker_id = dead.worker_id
          AND orders.started_at >= dead.first_claim_at
          AND orders.started_at <= dead.last_claim_at
          AND orders.status = 'processing'
        ORDER BY orders.started_at
        LIMIT {LIMIT}
        FOR NO KEY UPDATE OF orders SKIP LOCKED
    ) AS orders
    LIMIT {LIMIT}
),
{MOVE}
SELECT order_id, attempt, status
FROM moved
"""

SWEPT = f"""
WITH swept AS MATERIALIZED (
    SELECT worker_id
    FROM workers
    WHERE dead_at < clock_timestamp() - make_interval(secs => 2 * lease_seconds)
      AND swept_at IS NULL
      AND (SELECT orders.order_id
           FROM orders
           WHERE orders.worker_id = workers.worker_id
             AND orders.status = 'processing'
             AND orders.started_at >= COALESCE(workers.oldest_claim_at, '-infinity')
             AND orders.started_at <= workers.dead_at + make_interval(secs => 2 * lease_seconds)
           ORDER BY orders.started_at
           LIMIT 1) IS NULL
    LIMIT {LIMIT}
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE workers
SET swept_at = clock_timestamp()
WHERE worker_id = ANY (ARRAY (SELECT worker_id FROM swept))
"""


class Rescued(NamedTuple):
    """An order that was taken from a dead worker, its attempt there, and the state it has now."""

    order_id: UUID
    attempt: int
    status: Status


def sweep(connection: Connection) -> set[Rescued]:
    """Return the orders of dead workers to the line, `LIMIT` at most; return which.

    Repeat it: a dead worker may commit one last claim after it was declared dead, and rows that somebody
    has locked are passed over. `mark_swept` ends the repetition.
    """
    return _rescued(connection.execute(SWEEP).fetchall())


def _rescued(rows: Iterable[tuple[UUID, int, str]]) -> set[Rescued]:
    return {Rescued(order_id, attempt, Status(status)) for order_id, attempt, status in rows}


def mark_swept(connection: Connection) -> None:
    """Mark the dead workers that hold nothing and can't claim any more: no sweep looks at them again."""
    connection.execute(SWEPT)


PATROL_LIMIT = 1000

PATROL = f"""
WITH page AS MATERIALIZED (
    SELECT order_id, attempt, worker_id, status, started_at
    FROM orders
    WHERE started_at > %(after)s
    ORDER BY started_at
    FETCH FIRST {PATROL_LIMIT} ROWS WITH TIES
),
orphaned AS MATERIALIZED (
    SELECT order_id, attempt
    FROM page
    WHERE status = 'processing'
      AND NOT EXISTS (
          SELECT
          FROM workers
          WHERE workers.worker_id = page.worker_id
            AND workers.dead_at IS NULL)
    LIMIT {PATROL_LIMIT}
),
held AS MATERIALIZED (
    SELECT orders.order_id, orders.attempt, orders.worker_id, orders.seq, orders.queued_at, orders.started_at,
           outcome, error, retry_seconds,
           {NEXT_STATE}
    FROM orders
    JOIN orphaned USING (order_id, attempt)
    CROSS JOIN LATERAL (
        VALUES ('rescued', 'worker ' || orders.worker_id || ' is unknown', 0.0::double precision)
    ) AS ending (outcome, error, retry_seconds)
    WHERE orders.order_id = ANY (ARRAY (SELECT order_id FROM orphaned))
      AND orders.status = 'processing'
    ORDER BY orders.seq
    FOR NO KEY UPDATE OF orders SKIP LOCKED
),
{MOVE}
SELECT order_id, attempt, status, NULL
FROM moved
UNION ALL
SELECT NULL, NULL, NULL, (SELECT max(started_at) FROM page)
"""


@dataclass(frozen=True, slots=True)
class Patrolled:
    """`rescued` orders were returned; `reached` is where the next page begins, None at the end."""

    rescued: set[Rescued]
    reached: datetime | None


def patrol(connection: Connection, *, after: datetime | None) -> Patrolled:
    """Return orders that no known, living worker holds to the line, from the next page of started orders.

    No statement here leaves such an order behind; an edit of `workers` or `orders` by hand can.
    `after` is the `reached` of the last page, None to begin.
    """
    *rows, (_, _, _, reached) = connection.execute(PATROL, {"after": after or "-infinity"}).fetchall()
    return Patrolled(_rescued(row[:3] for row in rows), reached=reached)
