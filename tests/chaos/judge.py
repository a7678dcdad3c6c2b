"""Reads the database after a run and names every promise that was not kept."""

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from schema.queue import tally
from schema.runtime.connection import Connection
from tests.chaos.clients import Submission
from tests.chaos.evidence import Breach, Evidence, Kind

DURABLE = "durable"
IDEMPOTENT = "idempotent"
EXACTLY_ONCE = "exactly once"
PROGRESS = "progress"
RESCUE = "rescue"
METRICS = "exact metrics"


class _Row(NamedTuple):
    order_id: UUID
    user_id: str
    item_ids: list[str]
    amount: Decimal
    status: str
    holder_is_dead: bool
    entries: int
    entered: Decimal


_ORDERS = """
SELECT orders.order_id, user_id, item_ids, total_amount, status,
       status = 'processing' AND NOT EXISTS (
           SELECT FROM workers WHERE workers.worker_id = orders.worker_id AND dead_at IS NULL),
       COALESCE(entries, 0),
       COALESCE(entered, 0)
FROM orders
LEFT JOIN (
    SELECT order_id, count(*) AS entries, sum(amount) AS entered
    FROM ledger
    GROUP BY order_id
) AS ledger USING (order_id)
ORDER BY seq
"""


def judge(connection: Connection, evidence: Evidence) -> list[Breach]:
    """Return what is wrong with the orders and the ledger, given what the clients sent and were answered."""
    rows = [_Row(*row) for row in connection.execute(_ORDERS)]
    return [
        *_durability(rows, evidence.submissions),
        *_idempotency(rows, evidence.submissions),
        *_ends(rows, evidence.submissions),
        *_effects(rows),
        *_counts(connection),
    ]


def _counts(connection: Connection) -> Iterator[Breach]:
    counted = dict(connection.execute("SELECT status, count(*) FROM orders GROUP BY status").fetchall())
    for status, count in tally.read(connection).counts.items():
        if count != counted.get(status, 0):
            words = f"the metrics say {count} {status}, there are {counted.get(status, 0)}"
            yield Breach(METRICS, None, words)


def _durability(rows: list[_Row], submissions: list[Submission]) -> Iterator[Breach]:
    stored = {row.order_id: row for row in rows}
    for submission in submissions:
        if not submission.answered:
            yield Breach(PROGRESS, None, f"key {submission.key} was never answered with a 201")
        for order_id in submission.answered:
            row = stored.get(order_id)
            if row is None:
                yield Breach(DURABLE, order_id, "was answered with a 201 and is not there", Kind.LOST)
            elif (row.user_id, row.item_ids, row.amount) != _sent(submission):
                yield Breach(DURABLE, order_id, "is not what was sent")


def _sent(submission: Submission) -> tuple[str, list[str], Decimal]:
    return submission.key, submission.item_ids, submission.amount


def _idempotency(rows: list[_Row], submissions: list[Submission]) -> Iterator[Breach]:
    placed: dict[str, list[UUID]] = {}
    for row in rows:
        placed.setdefault(row.user_id, []).append(row.order_id)
    for submission in submissions:
        orders = placed.pop(submission.key, [])
        if len(orders) > 1:
            yield Breach(IDEMPOTENT, orders[1], f"is order 2 of {len(orders)} of key {submission.key}")
        if len(set(submission.answered)) > 1:
            yield Breach(IDEMPOTENT, submission.answered[-1], f"is another answer to key {submission.key}")
        if submission.misused:
            yield Breach(IDEMPOTENT, submission.misused[0], f"was placed with the used key {submission.key}")
    for user_id, orders in placed.items():
        yield Breach(IDEMPOTENT, orders[0], f"was never sent: {user_id}")


def _ends(rows: list[_Row], submissions: list[Submission]) -> Iterator[Breach]:
    ends = {submission.key: submission.end for submission in submissions}
    for row in rows:
        if row.holder_is_dead:
            yield Breach(RESCUE, row.order_id, "is still in the hands of a dead worker")
        elif row.status in ("pending", "processing", "retrying"):
            yield Breach(PROGRESS, row.order_id, f"is still {row.status}")
        elif row.status != ends.get(row.user_id, row.status):
            yield Breach(DURABLE, row.order_id, f"ended {row.status}, not {ends[row.user_id]}")


def _effects(rows: list[_Row]) -> Iterator[Breach]:
    for row in rows:
        wanted = 1 if row.status == "completed" and row.item_ids[2] == "ledger" else 0
        if row.entries != wanted:
            words = f"is {row.status} and has {row.entries} entries in the ledger, not {wanted}"
            kind = Kind.EFFECT_MISSING if row.entries < wanted else Kind.EFFECT_REPEATED
            yield Breach(EXACTLY_ONCE, row.order_id, words, kind)
        elif row.entries and row.entered != row.amount:
            yield Breach(EXACTLY_ONCE, row.order_id, f"has {row.entered} in the ledger, not {row.amount}")
