"""Judge from the record whether orders were claimed first come, first served, and once at a time.

The record of claims is `attempts`, with the ticket and the time in line of each claim that did not
complete, and in `orders` the last claim of each order.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from schema.order import RESCUES_TOGETHER
from schema.reports.verdict import DoubleStart, Evidence, Inversion, SharedTicket, Turn, Verdict
from schema.runtime.connection import Connection

REPLY_SECONDS = 600
"""How long the server may take for one statement of a check. A million orders need a few seconds."""

_CLAIMS = """
claims AS (
    SELECT order_id, attempt, seq, queued_at, started_at, ended_at
    FROM attempts
    UNION ALL
    SELECT order_id, attempt, seq, queued_at, started_at, finished_at
    FROM orders
    WHERE attempt > 0
      AND NOT EXISTS (
          SELECT
          FROM attempts
          WHERE attempts.order_id = orders.order_id
            AND attempts.attempt = orders.attempt)
)
"""
"""Every claim once: an order that failed or was cancelled has its last one in both tables. Part of a WITH."""

_IS_JUDGED = "(seq IS NOT NULL AND isfinite(queued_at) AND isfinite(started_at)) IS TRUE"

_COUNTS = f"""
WITH {_CLAIMS}
SELECT count(*),
       (SELECT count(*) FROM orders),
       count(*) FILTER (WHERE NOT {_IS_JUDGED})
FROM claims
"""


def check(connection: Connection, *, tolerance_seconds: float = 0.5) -> Verdict:
    """Read the whole record in one snapshot and judge it; nothing is written.

    An inversion is an order that had been in line for `tolerance_seconds` or more when one with a larger
    ticket was claimed, and was claimed later or is in line still. An order that waited to run alone may be
    passed, and is counted apart. What else excuses one is not on record: that somebody had the passed order's
    row locked, or that its insert was committed later than `queued_at`.

    `connection` must autocommit, and wait for a reply while a statement reads every order.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = '{REPLY_SECONDS} s'")
        claims, orders, unjudged = connection.one(_COUNTS)
        passed = list(_inversions(_turns(connection), timedelta(seconds=tolerance_seconds)))
        inversions = [each for each in passed if not each.passed.runs_alone]
        return Verdict(
            claims=claims,
            orders=orders,
            unjudged=unjudged,
            inversions=inversions,
            passed_alone=len(passed) - len(inversions),
            double_starts=_double_starts(connection),
            shared_tickets=_shared_tickets(connection),
        )


_TURNS = f"""
WITH {_CLAIMS},
turns AS (
    SELECT order_id, attempt, seq, queued_at, started_at
    FROM claims
    WHERE {_IS_JUDGED}
    UNION ALL
    SELECT order_id, attempt + 1, seq, queued_at, NULL
    FROM orders
    WHERE in_line
)
SELECT order_id, seq, queued_at, started_at,
       attempt > {RESCUES_TOGETHER} AND (
           SELECT count(*) FILTER (WHERE outcome = 'rescued') = {RESCUES_TOGETHER}
           FROM (
               SELECT outcome
               FROM attempts
               WHERE attempts.order_id = turns.order_id
                 AND attempts.attempt < turns.attempt
                 AND outcome <> 'released'
               ORDER BY attempt DESC
               LIMIT {RESCUES_TOGETHER}
           ) AS before)
FROM turns
ORDER BY started_at NULLS LAST, seq
"""


def _turns(connection: Connection) -> Iterator[Turn]:
    """Return all turns by the time they ended; those still in line come last, by ticket."""
    return connection.stream(_TURNS, Turn)


def _inversions(turns: Iterable[Turn], tolerance: timedelta) -> Iterator[Inversion]:
    """Find them in one pass over the turns, in the order of `_turns`.

    `ahead` is a stack of claims by time, tickets falling: a claim with a smaller ticket than a later claim
    is dropped, because the later one passed the same orders. So the top, once the tickets smaller
    than a turn's are gone, is the last claim that may have passed it.
    """
    ahead: list[tuple[datetime, Turn]] = []
    for turn in turns:
        while ahead and ahead[-1][1].seq <= turn.seq:
            ahead.pop()
        if ahead and ahead[-1][0] >= turn.queued_at + tolerance:
            yield Inversion(turn, ahead[-1][1])
        if turn.started_at is not None:
            ahead.append((turn.started_at, turn))


_DOUBLE_STARTS = f"""
WITH {_CLAIMS},
steps AS (
    SELECT order_id, attempt, started_at,
           lag(attempt, 1, 0) OVER history AS last_attempt,
           lag(ended_at) OVER history AS last_ended_at
    FROM claims
    WINDOW history AS (PARTITION BY order_id ORDER BY attempt)
)
SELECT order_id, attempt,
       CASE WHEN started_at < last_ended_at THEN '{Evidence.OVERLAP}' ELSE '{Evidence.NO_END}' END
FROM steps
WHERE started_at < last_ended_at
   OR (attempt > last_attempt + 1 AND (last_attempt > 0 OR started_at IS NOT NULL))
UNION ALL
SELECT order_id, attempt,
       CASE
           WHEN orders.status IN ('processing', 'completed') THEN '{Evidence.HELD_AFTER_END}'
           ELSE '{Evidence.TWO_CLAIMS}'
       END
FROM orders
JOIN attempts USING (order_id, attempt)
WHERE orders.status IN ('processing', 'completed')
   OR orders.worker_id <> attempts.worker_id
   OR orders.started_at <> attempts.started_at
ORDER BY order_id, attempt
"""


def _double_starts(connection: Connection) -> list[DoubleStart]:
    """Find claims that are not the only one of their order at their time.

    An order's attempts are numbered without a gap, so one that is missing was taken over while it was
    held. An order imported with attempts behind it looks the same once it is claimed here: import their
    rows too. As long as no claim of an order is on record there is nothing to find.
    """
    rows = connection.execute(_DOUBLE_STARTS)
    return [DoubleStart(order_id, attempt, Evidence(evidence)) for order_id, attempt, evidence in rows]


_SHARED_TICKETS = """
WITH tickets AS (
    SELECT seq, lag(order_id) OVER (PARTITION BY seq ORDER BY order_id) AS order_id, order_id AS other_id
    FROM orders
)
SELECT seq, order_id, other_id
FROM tickets
WHERE order_id IS NOT NULL
ORDER BY seq, other_id
"""


def _shared_tickets(connection: Connection) -> list[SharedTicket]:
    return [SharedTicket(*row) for row in connection.execute(_SHARED_TICKETS)]
