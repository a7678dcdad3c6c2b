"""End attempts that did not complete their order: retry later, reject, release, cancel.

All of them, and the rescue in `schema.queue.rescue`, follow the one CASE below. Each leaves a row in
`attempts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schema.order import Fence
from schema.runtime.connection import Connection
from schema.states import ATTEMPTS_CEILING, Outcome

NEXT_STATE = f"""
           CASE
               WHEN outcome = 'rejected' THEN 'failed'
               WHEN orders.cancel_requested_at IS NOT NULL THEN 'cancelled'
               WHEN outcome = 'released' AND orders.attempt < {ATTEMPTS_CEILING} THEN 'pending'
               WHEN orders.attempt >= LEAST(orders.attempt_limit, {ATTEMPTS_CEILING}) THEN 'failed'
               WHEN outcome = 'rescued' THEN 'pending'
               ELSE 'retrying'
           END AS next_state
"""
"""Where an order goes from processing, by the `outcome` of its attempt. Part of a SELECT over `orders`."""

MOVE = """
moved AS (
    UPDATE orders
    SET status = next_state,
        worker_id = CASE WHEN next_state IN ('failed', 'cancelled') THEN orders.worker_id END,
        started_at = CASE WHEN next_state IN ('failed', 'cancelled') THEN orders.started_at END,
        finished_at = CASE WHEN next_state IN ('failed', 'cancelled') THEN clock_timestamp() END,
        queued_at = CASE WHEN next_state = 'pending' THEN clock_timestamp() ELSE orders.queued_at END,
        retry_at = CASE
                       WHEN next_state = 'retrying'
                       THEN clock_timestamp() + make_interval(secs => retry_seconds)
                   END,
        attempt_limit = CASE
                            WHEN outcome = 'released' AND attempt_limit IS NOT NULL
                            THEN LEAST(GREATEST(attempt_limit, orders.attempt), 2147483646) + 1
                            ELSE attempt_limit
                        END,
        last_error = COALESCE(error, last_error),
        rescues = CASE outcome
                      WHEN 'rescued' THEN LEAST(COALESCE(rescues, 0), orders.attempt) + 1
                      WHEN 'released' THEN rescues
                  END
    FROM held
    WHERE orders.order_id = held.order_id
    RETURNING orders.order_id, orders.attempt, orders.status, rescues
),
recorded AS (
    INSERT INTO attempts (order_id, attempt, worker_id, seq, queued_at, started_at, outcome, error)
    SELECT order_id, attempt, worker_id, seq, queued_at, started_at, outcome, error
    FROM held
    JOIN moved USING (order_id, attempt)
    ON CONFLICT (order_id, attempt) DO NOTHING
)
"""
"""Move the `held` orders to their next state and record their attempts. Part of a WITH."""

_END = f"""
WITH ending AS MATERIALIZED (
    SELECT *
    FROM unnest(
        %(order_ids)s::uuid[], %(attempts)s::integer[], %(outcomes)s::text[], %(errors)s::text[],
        %(retry_seconds)s::double precision[]
    ) AS ending (order_id, attempt, outcome, error, retry_seconds)
),
held AS MATERIALIZED (
    SELECT orders.order_id, orders.attempt, orders.worker_id, orders.seq, orders.queued_at, orders.started_at,
           outcome, error, retry_seconds,
           {NEXT_STATE}
    FROM orders
    JOIN ending USING (order_id, attempt)
    WHERE orders.order_id = ANY (ARRAY (SELECT order_id FROM ending))
      AND orders.worker_id = %(worker_id)s
      AND orders.status = 'processing'
    ORDER BY orders.seq
    FOR NO KEY UPDATE OF orders SKIP LOCKED
),
{MOVE}
SELECT order_id, attempt,
       EXISTS (
           SELECT
           FROM orders
           WHERE orders.order_id = ending.order_id
             AND orders.attempt = ending.attempt
             AND orders.worker_id = %(worker_id)s
             AND orders.status = 'processing') AS busy
FROM ending
WHERE (order_id, attempt) NOT IN (SELECT order_id, attempt FROM moved)
UNION ALL
SELECT order_id, attempt, NULL
FROM moved
WHERE status = 'failed'
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one claim ends without a completion.

    `outcome` decides the next state: RAISED and TIMED_OUT retry after `retry_seconds` while attempts are
    left, and so does CANCELLED unless a cancel was asked for; REJECTED fails at once; RELEASED returns to
    the same place in line, the attempt not spent. Where a cancel was asked for, an order ends cancelled
    instead of returning.
    """

    fence: Fence
    outcome: Outcome
    error: str | None = None
    retry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of endings that were handed in.

    `busy` ones are not written: somebody has their rows locked, or a user's trigger or rule keeps them as
    they are. Nor are `lost` ones, whose claims are gone. All others are written, and the orders of `failed`
    ones have failed for good.
    """

    busy: set[Fence]
    lost: set[Fence]
    failed: set[Fence]


def end(connection: Connection, worker_id: str, *, endings: Sequence[Ending]) -> Ended:
    """Write the ends of this worker's claims; return which could not be written, and which orders failed.

    Fenced by order, worker and attempt; waits for no lock. When it raises, some outcome is unknown: hand
    the same endings in again, those already written are then reported as lost.
    """
    rows = connection.execute(
        _END,
        {
            "worker_id": worker_id,
            "order_ids": [ending.fence.order_id for ending in endings],
            "attempts": [ending.fence.attempt for ending in endings],
            "outcomes": [ending.outcome for ending in endings],
            "errors": [ending.error for ending in endings],
            "retry_seconds": [ending.retry_seconds for ending in endings],
        },
    ).fetchall()
    fates: dict[bool | None, set[Fence]] = {True: set(), False: set(), None: set()}
    for *fence, busy in rows:
        fates[busy].add(Fence(*fence))
    return Ended(busy=fates[True], lost=fates[False], failed=fates[None])
