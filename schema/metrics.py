"""Count the orders by state and estimate how long the waiting ones will take."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg

from schema.states import Status


@dataclass(frozen=True, slots=True)
class Metrics:
    """`counts` has every state. Times are whole seconds, rounded half up.

    `average_processing_time` is the mean from insert to completion, 0 when nothing has completed;
    `estimated_processing_time` the time to work off what is pending and processing.
    """

    counts: Mapping[Status, int]
    average_processing_time: int
    estimated_processing_time: int
    live_workers: int
    live_slots: int
    paused: bool


_COUNTS = """
SELECT status,
       count(*),
       avg(EXTRACT(epoch FROM finished_at - created_at)) FILTER (WHERE status = 'completed'),
       avg(EXTRACT(epoch FROM finished_at - started_at)) FILTER (WHERE status = 'completed')
FROM orders
GROUP BY status
"""

_WORKERS = """
SELECT count(*),
       COALESCE(sum(slots), 0),
       EXISTS (SELECT FROM queue WHERE paused_at IS NOT NULL)
FROM workers
WHERE dead_at IS NULL
  AND heartbeat_at > clock_timestamp() - make_interval(secs => lease_seconds)
"""


def read(connection: psycopg.Connection[Any], *, simulated_seconds: float) -> Metrics:
    """Return the numbers of this moment.

    `simulated_seconds` is what an order is taken to need in a slot while none has completed.
    """
    counts = dict.fromkeys(Status, 0)
    average = in_slot = None
    for status, count, to_completion, slot_time in connection.execute(_COUNTS):
        counts[Status(status)] = count
        if status == Status.COMPLETED:
            average, in_slot = to_completion, slot_time
    workers, slots, paused = connection.execute(_WORKERS).fetchone() or (0, 0, False)
    ahead = counts[Status.PENDING] + counts[Status.PROCESSING]
    seconds_each = Decimal(str(simulated_seconds)) if in_slot is None else in_slot
    return Metrics(
        counts=counts,
        average_processing_time=_whole(average or Decimal(0)),
        estimated_processing_time=_whole(ahead * seconds_each / max(slots, 1)),
        live_workers=workers,
        live_slots=slots,
        paused=paused,
    )


def _whole(seconds: Decimal) -> int:
    return int(seconds.quantize(Decimal(1), rounding=ROUND_HALF_UP))
