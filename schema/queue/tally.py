"""The tally: how many orders are in each state and how long they took, known without counting rows.

Triggers append what each statement changed to `tally_changes` (migrations 0007 and 0008), so that no
writer waits for another. `fold` adds these changes to the one row of `tally`. Both together are exact in
every snapshot. The row's `floor` keeps readers from changes that are folded, but stay in the index while
an open snapshot can see them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from schema.errors import OrdersError
from schema.runtime.connection import Connection
from schema.states import Status

FOLD_LIMIT = 10_000

RECOUNT_SECONDS = 600
"""How long a recount may take; writers of orders wait meanwhile."""

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
    """The row that holds the counts is gone."""

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


_SUMS = (*Status, "seconds_to_completion", "timed", "seconds_in_slot", "arrivals", "completions")
"""The columns of `tally`, in the order in which `read` takes them apart."""


def _each(form: str, *, columns: Sequence[str] = _SUMS) -> str:
    """Write `form` once for each column, in which `{0}` is its name."""
    return ",\n       ".join(form.format(column) for column in columns)


_READ = f"""
WITH floor AS MATERIALIZED ({FLOOR}),
changes AS MATERIALIZED (
    SELECT {_each("sum({0}) AS {0}")}
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
SELECT {_each("tally.{0} + COALESCE(changes.{0}, 0)", columns=_SUMS[:-2])},
       {_each("tally.{0} - COALESCE(mark.{0}, tally.{0}) + COALESCE(changes.{0}, 0)", columns=_SUMS[-2:])},
       GREATEST(EXTRACT(epoch FROM clock_timestamp() - mark.at), {RATE_SECONDS})
FROM tally
CROSS JOIN changes
LEFT JOIN mark ON true
"""


def read(connection: Connection) -> Tally:
    """Return the tally of this moment, exactly as counting all rows would have it."""
    row = connection.execute(_READ).fetchone()
    if row is None:
        raise TallyLostError
    *counts, seconds_to_completion, timed, seconds_in_slot, arrivals, completions, seconds = row
    return Tally(
        counts={status: int(count) for status, count in zip(Status, counts, strict=True)},
        seconds_to_completion=seconds_to_completion,
        timed=int(timed),
        seconds_in_slot=seconds_in_slot,
        arrival_rate=float(arrivals / seconds),
        completion_rate=float(completions / seconds),
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
           {_each("COALESCE(sum({0}), 0) AS {0}")}
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
    {_each("{0} = tally.{0} + change.{0}")}
FROM change
WHERE change.count > 0
RETURNING change.count
"""


def fold(connection: Connection) -> int:
    """Add up to `FOLD_LIMIT` changes to the tally; return how many.

    Any process may call it at any time. It waits for no lock, and does nothing while another process folds.
    """
    row = connection.execute(_FOLD).fetchone()
    return 0 if row is None else int(row[0])


_RECOUNT = f"""
LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE;
DELETE FROM tally;
DELETE FROM tally_changes;
DELETE FROM tally_marks;
INSERT INTO tally ({_each("{0}", columns=_SUMS[:-2])})
SELECT {_each("count(*) FILTER (WHERE status = '{0}')", columns=tuple(Status))},
       COALESCE(sum(EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'), 0),
       count(started_at) FILTER (WHERE status = 'completed'),
       COALESCE(sum(EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed'), 0)
FROM orders;
"""


def recount(connection: Connection) -> None:
    """Rebuild the tally from the rows. Writers of orders wait meanwhile.

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


def forget_floor(connection: Connection) -> None:
    """Look for the changes of all transactions again, in a database that was restored from a dump.

    The floor is a transaction's number on the server that was dumped. When this server's numbers reach it,
    what was changed here until then would be taken for folded.
    """
    connection.execute(_FORGET_FLOOR)
