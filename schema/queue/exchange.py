"""The exchange: finished orders out, the next ones in, in one statement, one commit, one round trip.

This is the only statement that claims and the one that completes nearly every order (the other is
`schema.queue.completion`, for handlers that write in a transaction of their own).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from schema.order import RESCUES_TOGETHER, Claim, Fence
from schema.queue import arrays
from schema.runtime.connection import Connection


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What one exchange did.

    `claimed` is in ticket order. `busy` claims are still held, but somebody has their rows locked, or a
    user's trigger or rule keeps them as they are: hand them in again. `lost` claims belong to somebody else
    by now; nothing was written for them. All other finished ones are completed. `at` is the database's time
    before anything was claimed. `alone_waits` tells that an order that has to run alone was in line then,
    `suppressed` that it found more orders than it claimed: a user's trigger or rule suppresses the claim.
    """

    claimed: list[Claim]
    busy: set[Fence]
    lost: set[Fence]
    alive: bool
    paused: bool
    at: datetime
    alone_waits: bool = False
    suppressed: bool = False


HANGS_AFTER_MINUTES = 10
"""A worker with an older claim is in charge of nothing: what it runs may never end."""


def _statement(*, alone: str, floor: str, before: str, else_alone: str) -> str:
    """Return the exchange with what it does about orders that have to run alone."""
    # One UPDATE moves both, each row by its own state: a second one would read and check all constraints
    # again, a sixth of the cost of an exchange of one. No joins: a generic plan nests loops, quadratic in the
    # slots. `IS TRUE` makes the pairs a hash table instead; `width_bucket` is a binary search in the tickets.
    return f"""
WITH finished AS MATERIALIZED (
    SELECT order_id, attempt
    FROM unnest(%(order_ids)s::uuid[], %(attempts)s::integer[]) AS finished (order_id, attempt)
),
held AS MATERIALIZED (
    SELECT order_id, attempt
    FROM orders
    WHERE order_id = ANY (ARRAY (SELECT order_id FROM finished))
      AND ((order_id, attempt) IN (SELECT order_id, attempt FROM finished)) IS TRUE
      AND worker_id = %(worker_id)s
      AND status = 'processing'
    ORDER BY seq
    FOR NO KEY UPDATE SKIP LOCKED
),
now AS MATERIALIZED (
    SELECT clock_timestamp() AS at,
           EXISTS (SELECT FROM workers WHERE worker_id = %(worker_id)s AND dead_at IS NULL) AS alive,
           EXISTS (SELECT FROM queue WHERE paused_at IS NOT NULL) AS paused
),
allowance AS MATERIALIZED (
    SELECT CASE WHEN alive AND NOT paused THEN %(free)s::bigint ELSE 0 END AS orders
    FROM now
),
{alone}below_floor AS MATERIALIZED (
    SELECT order_id, seq, clock_timestamp() AS at
    FROM orders
    WHERE in_line
      AND attempt > 0
      AND COALESCE(rescues, 0) < {RESCUES_TOGETHER}
      AND seq < {floor}
    ORDER BY seq
    LIMIT (SELECT orders FROM allowance)
    FOR NO KEY UPDATE SKIP LOCKED
),
from_floor AS MATERIALIZED (
    SELECT order_id, seq, clock_timestamp() AS at
    FROM orders
    WHERE in_line
      AND COALESCE(rescues, 0) < {RESCUES_TOGETHER}
      AND seq >= %(floor)s::bigint{before}
    ORDER BY seq
    LIMIT (SELECT orders FROM allowance) - (SELECT count(*) FROM below_floor)
    FOR NO KEY UPDATE SKIP LOCKED
),
next AS MATERIALIZED (
    SELECT order_id, seq, at FROM below_floor
    UNION ALL
    SELECT order_id, seq, at FROM from_floor{else_alone}
    ORDER BY seq
),
moved AS (
    UPDATE orders
    SET status = CASE WHEN in_line THEN 'processing' ELSE 'completed' END,
        worker_id = %(worker_id)s,
        attempt = CASE WHEN in_line THEN attempt + 1 ELSE attempt END,
        attempt_limit = CASE
            WHEN in_line THEN COALESCE(attempt_limit, attempt + %(max_attempts)s::integer)
            ELSE attempt_limit
        END,
        started_at = CASE
            WHEN in_line THEN GREATEST(
                (ARRAY (SELECT at FROM next))[width_bucket(seq, ARRAY (SELECT seq FROM next))],
                %(since)s::timestamptz)
            ELSE started_at
        END,
        finished_at = CASE WHEN NOT in_line THEN clock_timestamp() END
    WHERE order_id = ANY (ARRAY (SELECT order_id FROM held UNION ALL SELECT order_id FROM next))
    RETURNING order_id, attempt, attempt_limit, seq, user_id, item_ids, total_amount, created_at, started_at,
              rescues, status
)
SELECT order_id, attempt, attempt_limit, seq, user_id, item_ids, total_amount, created_at, started_at,
       COALESCE(rescues, 0), 'claimed' AS outcome
FROM moved
WHERE status = 'processing'
  AND (order_id IN (SELECT order_id FROM next)) IS TRUE
UNION ALL
SELECT order_id, attempt, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       COALESCE (
           (SELECT CASE orders.status WHEN 'completed' THEN 'completed' ELSE 'busy' END
            FROM orders
            WHERE orders.order_id = finished.order_id
              AND orders.attempt = finished.attempt
              AND orders.worker_id = %(worker_id)s
              AND orders.status IN ('processing', 'completed')),
           'lost')
FROM finished
WHERE (order_id, attempt) NOT IN (SELECT order_id, attempt FROM moved WHERE status = 'completed')
UNION ALL
SELECT NULL, NULL, NULL, (SELECT count(*) FROM next), NULL, NULL, NULL, at, NULL,
       (SELECT rescues FROM orders WHERE in_line AND rescues >= {RESCUES_TOGETHER} ORDER BY seq LIMIT 1),
       CASE WHEN NOT alive THEN 'dead' WHEN paused THEN 'paused' ELSE 'alive' END
FROM now
"""


EXCHANGE = _statement(alone="", floor="%(floor)s::bigint", before="", else_alone="")

EXCHANGE_ALONE = _statement(
    alone=f"""\
in_charge AS MATERIALIZED (
    SELECT worker_id
    FROM workers
    WHERE dead_at IS NULL
      AND oldest_claim_at > clock_timestamp() - INTERVAL '{HANGS_AFTER_MINUTES} minutes'
    ORDER BY slots, worker_id
    LIMIT 1
),
alone AS MATERIALIZED (
    SELECT order_id, seq, clock_timestamp() AS at
    FROM orders
    WHERE in_line
      AND rescues >= {RESCUES_TOGETHER}
    ORDER BY seq
    LIMIT (
        SELECT CASE
                   WHEN orders = 0 THEN 0
                   WHEN %(idle)s THEN 1
                   WHEN %(worker_id)s = (SELECT worker_id FROM in_charge) THEN 1
                   ELSE 0
               END
        FROM allowance)
    FOR NO KEY UPDATE SKIP LOCKED
),
""",
    floor="LEAST(%(floor)s::bigint, (SELECT seq FROM alone))",
    before="""
      AND seq < COALESCE((SELECT seq FROM alone), 9223372036854775807)""",
    else_alone="""
    UNION ALL
    SELECT order_id, seq, at
    FROM alone
    WHERE %(idle)s
      AND NOT EXISTS (SELECT FROM below_floor)
      AND NOT EXISTS (SELECT FROM from_floor)""",
)
"""What is sent while an order that has to run alone may be in line. All of it in each exchange costs 8 %."""


def exchange(
    connection: Connection,
    worker_id: str,
    *,
    finished: Sequence[Fence],
    free: int,
    idle: bool | None,
    floor: int,
    since: datetime,
    max_attempts: int,
) -> Exchanged:
    """Complete the `finished` claims of this worker and claim up to `free` pending orders by ticket.

    An order that has to run alone is claimed by itself, and only by an `idle` worker, which runs nothing. So
    an idle worker, and the one in charge of such orders, claim what is before it in line and nothing behind.
    All others pass it, and so does everybody if `idle` is None.

    `floor` is a ticket: below it only orders that came back from an earlier attempt are looked for. `since`
    is the `at` of the worker's last exchange: no claim is dated before it, whatever the server's clock does
    in between. `max_attempts` becomes the limit of an order that is claimed for the first time.

    Waits for no lock. Committed on return if `connection` autocommits; when it raises, what was
    finished may or may not be written: hand it in again. A worker declared dead claims nothing.
    """
    rows = connection.execute(
        EXCHANGE if idle is None else EXCHANGE_ALONE,
        {
            "worker_id": worker_id,
            "order_ids": arrays.of_uuids([fence.order_id for fence in finished]),
            "attempts": arrays.of_numbers([fence.attempt for fence in finished]),
            "free": free,
            "idle": idle,
            "floor": floor,
            "since": since,
            "max_attempts": max_attempts,
        },
        binary=True,
    ).fetchall()
    return _exchanged(rows)


def _exchanged(rows: list[tuple[Any, ...]]) -> Exchanged:
    """Split the answer's rows by their last column. The last row is of the worker."""
    *rest, (_, _, _, found, *_, at, _, rescues, state) = rows
    claimed: list[Claim] = []
    unclaimed: dict[str, set[Fence]] = {outcome: set() for outcome in _OUTCOMES}
    for *columns, outcome in rest:
        if outcome == "claimed":
            claimed.append(Claim._make(columns))
        else:
            unclaimed[outcome].add(Fence(*columns[:2]))
    return Exchanged(
        claimed=sorted(claimed, key=attrgetter("seq")),
        busy=unclaimed["busy"],
        lost=unclaimed["lost"],
        alive=state != "dead",
        paused=state == "paused",
        at=at,
        alone_waits=rescues is not None,
        suppressed=found > len(claimed),
    )


_OUTCOMES = ("busy", "lost", "completed")
"""What may become of a finished claim that this exchange did not complete."""


RECOVER_CLAIMS = """
SELECT order_id, attempt, attempt_limit, seq, user_id, item_ids, total_amount, created_at, started_at,
       COALESCE(rescues, 0)
FROM orders
WHERE started_at BETWEEN %(since)s AND 'infinity'
  AND worker_id = %(worker_id)s
  AND status = 'processing'
  AND order_id <> ALL (%(held)s::uuid[])
ORDER BY seq
LIMIT 10000
"""


def recover_claims(
    connection: Connection, worker_id: str, *, held: Sequence[UUID], since: datetime
) -> list[Claim]:
    """Return the claims that bear this worker's id but that it does not hold, in ticket order.

    They come from an exchange that was committed while its answer was lost on the way. `since` is the
    `at` of the last exchange that was answered.
    """
    rows = connection.execute(
        RECOVER_CLAIMS, {"worker_id": worker_id, "held": list(held), "since": since}, binary=True
    )
    return [Claim(*row) for row in rows]
