"""The tally: how many orders are in each state and how long they took, known without counting rows.

Triggers append what each statement changed to `tally_changes` (migration 0005), so that no writer waits for
another, whoever wrote by whatever way. `fold` adds up what was appended into the one row of `tally`. Both
together are exact in every snapshot; that row's `floor` keeps readers from what was folded, which stays in
the index for as long as somebody's open snapshot can see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg

from schema.errors import OrdersError
from schema.states import Status

FOLD_LIMIT = 10_000

RECOUNT_SECONDS = 600
"""How long a recount may take, in which nobody else can write orders."""

MARK_SECONDS = 120
RATE_SECONDS = 60

# A restored dump may come from a server whose transactions had larger numbers.
FLOOR = """
    SELECT CASE
               WHEN floor <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN floor
               ELSE 0
           END AS floor
    FROM tally
"""


class TallyLostError(OrdersError):
    """Somebody has deleted the row that the counts stand in."""

    def __init__(self) -> None:
        super().__init__("the table tally has no row: run `orders recount`")


@dataclass(frozen=True, slots=True)
class Tally:
    """The sums over all orders of one moment; `counts` has every state.

    Of completed orders: `seconds_to_completion` from insert to end, and of the `timed` among them, which
    have a start, `seconds_in_slot` from start to end. The rates are orders a second over the last one or two
    minutes.
    """

    counts: Mapping[Status, int]
    seconds_to_completion: Decimal
    timed: int
    seconds_in_slot: Decimal
    arrival_rate: float
    completion_rate: float


_READ = f"""
WITH floor AS MATERIALIZED ({FLOOR}),
changes AS MATERIALIZED (
    SELECT sum(pending) AS pending,
           sum(processing) AS processing,
           sum(retrying) AS retrying,
           sum(completed) AS completed,
           sum(failed) AS failed,
           sum(cancelled) AS cancelled,
           sum(seconds_to_completion) AS seconds_to_completion,
           sum(timed) AS timed,
           sum(seconds_in_slot) AS seconds_in_slot,
           sum(arrivals) AS arrivals,
           sum(completions) AS completions
    FROM tally_changes
    WHERE xid >= (SELECT floor FROM floor)
),
mark AS MATERIALIZED (
    SELECT at, arrivals, completions
    FROM tally_marks
    WHERE at > clock_timestamp() - make_interval(secs => {MARK_SECONDS})
    ORDER BY at
    LIMIT 1
)
SELECT tally.pending + COALESCE(changes.pending, 0),
       tally.processing + COALESCE(changes.processing, 0),
       tally.retrying + COALESCE(changes.retrying, 0),
       tally.completed + COALESCE(changes.completed, 0),
       tally.failed + COALESCE(changes.failed, 0),
       tally.cancelled + COALESCE(changes.cancelled, 0),
       tally.seconds_to_completion + COALESCE(changes.seconds_to_completion, 0),
       tally.timed + COALESCE(changes.timed, 0),
       tally.seconds_in_slot + COALESCE(changes.seconds_in_slot, 0),
       tally.arrivals - COALESCE(mark.arrivals, tally.arrivals) + COALESCE(changes.arrivals, 0),
       tally.completions - COALESCE(mark.completions, tally.completions) + COALESCE(changes.completions, 0),
       GREATEST(EXTRACT(epoch FROM clock_timestamp() - mark.at), {RATE_SECONDS})
FROM tally
CROSS JOIN changes
LEFT JOIN mark ON true
"""


def read(connection: psycopg.Connection[Any]) -> Tally:
    """Return the tally of this moment, exactly as counting all rows would have it."""
    row = connection.execute(_READ).fetchone()
    if row is None:
        raise TallyLostError
    *counts, seconds_to_completion, timed, seconds_in_slot, arrivals, completions, seconds = row
    return Tally(
        counts={status: int(count) for status, count in zip(_ORDER, counts, strict=True)},
        seconds_to_completion=seconds_to_completion,
        timed=int(timed),
        seconds_in_slot=seconds_in_slot,
        arrival_rate=float(arrivals / seconds),
        completion_rate=float(completions / seconds),
    )


_ORDER = (
    Status.PENDING,
    Status.PROCESSING,
    Status.RETRYING,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
)

_FOLD = f"""
WITH base AS MATERIALIZED ({FLOOR} FOR NO KEY UPDATE SKIP LOCKED),
folded AS (
    DELETE FROM tally_changes
    WHERE ctid = ANY (ARRAY (
        SELECT ctid
        FROM tally_changes
        WHERE xid >= (SELECT floor FROM base)
        ORDER BY xid
        LIMIT {FOLD_LIMIT}
    ))
    RETURNING *
),
change AS MATERIALIZED (
    SELECT count(*) AS count,
           max(xid) AS newest,
           COALESCE(sum(pending), 0) AS pending,
           COALESCE(sum(processing), 0) AS processing,
           COALESCE(sum(retrying), 0) AS retrying,
           COALESCE(sum(completed), 0) AS completed,
           COALESCE(sum(failed), 0) AS failed,
           COALESCE(sum(cancelled), 0) AS cancelled,
           COALESCE(sum(seconds_to_completion), 0) AS seconds_to_completion,
           COALESCE(sum(timed), 0) AS timed,
           COALESCE(sum(seconds_in_slot), 0) AS seconds_in_slot,
           COALESCE(sum(arrivals), 0) AS arrivals,
           COALESCE(sum(completions), 0) AS completions
    FROM folded
),
marked AS (
    INSERT INTO tally_marks (arrivals, completions)
    SELECT tally.arrivals, tally.completions
    FROM tally, change
    WHERE change.count > 0
      AND NOT EXISTS (SELECT FROM tally_marks WHERE at > clock_timestamp() - INTERVAL '10 seconds')
),
forgotten AS (
    DELETE FROM tally_marks
    WHERE (SELECT count FROM change) > 0
      AND at < clock_timestamp() - make_interval(secs => {MARK_SECONDS})
)
UPDATE tally
SET floor = LEAST(
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        CASE WHEN change.count = {FOLD_LIMIT} THEN change.newest END),
    pending = tally.pending + change.pending,
    processing = tally.processing + change.processing,
    retrying = tally.retrying + change.retrying,
    completed = tally.completed + change.completed,
    failed = tally.failed + change.failed,
    cancelled = tally.cancelled + change.cancelled,
    seconds_to_completion = tally.seconds_to_completion + change.seconds_to_completion,
    timed = tally.timed + change.timed,
    seconds_in_slot = tally.seconds_in_slot + change.seconds_in_slot,
    arrivals = tally.arrivals + change.arrivals,
    completions = tally.completions + change.completions
FROM change
WHERE change.count > 0
RETURNING change.count
"""


def fold(connection: psycopg.Connection[Any]) -> int:
    """Add up to `FOLD_LIMIT` of the changes that stand by themselves; return how many.

    Anybody may call it at any time: it waits for nobody, and where another one is at it, it does nothing.
    """
    row = connection.execute(_FOLD).fetchone()
    return 0 if row is None else int(row[0])


_RECOUNT = """
LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE;
DELETE FROM tally;
DELETE FROM tally_changes;
DELETE FROM tally_marks;
INSERT INTO tally (pending, processing, retrying, completed, failed, cancelled, seconds_to_completion, timed,
                   seconds_in_slot)
SELECT count(*) FILTER (WHERE status = 'pending'),
       count(*) FILTER (WHERE status = 'processing'),
       count(*) FILTER (WHERE status = 'retrying'),
       count(*) FILTER (WHERE status = 'completed'),
       count(*) FILTER (WHERE status = 'failed'),
       count(*) FILTER (WHERE status = 'cancelled'),
       COALESCE(sum(EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'), 0),
       count(started_at) FILTER (WHERE status = 'completed'),
       COALESCE(sum(EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed'), 0)
FROM orders;
"""


def recount(connection: psycopg.Connection[Any]) -> None:
    """Make the tally anew from the rows; whoever wants to write orders waits meanwhile.

    Needed only after orders were written with the triggers off, as a restore of data alone may do.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{RECOUNT_SECONDS} s'")
        # While it waits for the lock, all writers wait behind it.
        connection.execute("SET LOCAL lock_timeout = '5 s'")
        connection.execute(_RECOUNT)


_FORGET_FLOOR = """
UPDATE tally
SET floor = 0
"""


def forget_floor(connection: psycopg.Connection[Any]) -> None:
    """Look for the changes of all transactions again, in a database that was restored from a dump.

    The floor is a transaction's number on the server that was dumped. When this server's numbers reach it,
    what was changed here until then would be taken for folded.
    """
    connection.execute(_FORGET_FLOOR)
