"""Which chores are due, asked with one statement, so that an idle queue costs next to nothing."""

from typing import NamedTuple

from schema.queue.tally import FLOOR
from schema.runtime.connection import Connection


class Due(NamedTuple):
    """Which chores have something to do."""

    sweep: bool
    retries: bool
    tally: bool

    @classmethod
    def everything(cls) -> "Due":
        """Return that all have, for whoever can't ask."""
        return cls(sweep=True, retries=True, tally=True)


DUE = f"""
SELECT EXISTS (SELECT FROM workers WHERE dead_at IS NOT NULL AND swept_at IS NULL),
       EXISTS (
           SELECT
           FROM (SELECT retry_at FROM orders WHERE retry_at IS NOT NULL ORDER BY retry_at LIMIT 1) AS first
           WHERE retry_at <= clock_timestamp()),
       EXISTS (SELECT FROM tally_changes WHERE xid >= ({FLOOR}))
"""


def due(connection: Connection) -> Due:
    """Return which chores are due now."""
    return Due(*connection.one(DUE))
