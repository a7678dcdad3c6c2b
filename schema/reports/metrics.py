"""The queue in numbers, at a cost that grows neither with its history nor with its line."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from schema.queue import tally
from schema.queue.tally import Tally
from schema.runtime.connection import Connection
from schema.states import Status

SAMPLE = 1000
"""How many of the orders that were claimed last the percentiles are made of."""

RECENT = 100
"""How many of the completed among them the estimate is made of, so that it follows a change of pace."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that half, 95 % and 99 % of a sample did not exceed; None where the sample is empty."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class LiveHandler:
    """So many living workers, with so many slots, run this handler in this version of ours.

    Both are None of workers of a release that did not tell.
    """

    handler: str | None
    version: str | None
    workers: int
    slots: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """`counts` has every state. The first two times are whole seconds, rounded half up.

    `average_processing_time` is the mean from insert to completion, 0 when nothing has completed;
    `estimated_processing_time` the time to work off what is pending and processing, if each takes as long in
    a slot as the last `RECENT` completed. `live_handlers` is what the living workers run, by handler and
    version. Rates are orders a second over the last one or two minutes. `wait` is the time in line and
    `processing` the time in a slot, of the last `SAMPLE` orders claimed. `oldest_pending_seconds` is how long
    the first in line has been in it, None when there is none.
    """

    counts: Mapping[Status, int]
    average_processing_time: int
    estimated_processing_time: int
    live_workers: int
    live_slots: int
    live_handlers: list[LiveHandler]
    paused: bool
    arrival_rate: float
    completion_rate: float
    wait: Percentiles
    processing: Percentiles
    oldest_pending_seconds: int | None


# The first row is of all living workers, also when there are none.
_WORKERS = """
SELECT EXISTS (SELECT FROM queue WHERE paused_at IS NOT NULL),
       handler,
       version,
       count(*),
       COALESCE(sum(slots), 0)
FROM workers
WHERE dead_at IS NULL
  AND heartbeat_at > clock_timestamp() - make_interval(secs => lease_seconds)
GROUP BY GROUPING SETS ((), (handler, version))
ORDER BY GROUPING (handler) DESC, handler, version
"""

_TIMES = f"""
WITH recent AS MATERIALIZED (
    SELECT status,
           EXTRACT(epoch FROM started_at - queued_at)::float8 AS waited,
           EXTRACT(epoch FROM finished_at - started_at)::float8 AS took,
           started_at
    FROM orders
    WHERE started_at IS NOT NULL
    ORDER BY started_at DESC
    LIMIT {SAMPLE}
)
SELECT percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY waited),
       percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY took)
           FILTER (WHERE status = 'completed'),
       (SELECT avg(took)
        FROM (
            SELECT took FROM recent WHERE status = 'completed' ORDER BY started_at DESC LIMIT {RECENT}
        ) AS completed),
       (SELECT EXTRACT(epoch FROM clock_timestamp() - queued_at)::bigint
        FROM orders
        WHERE in_line
        ORDER BY seq
        LIMIT 1)
FROM recent
"""


def read(connection: Connection, *, simulated_seconds: float) -> Metrics:
    """Return the numbers of this moment.

    `simulated_seconds` is what an order is taken to need in a slot while none has completed.
    """
    now = tally.read(connection)
    (paused, _, _, workers, slots), *handlers = connection.execute(_WORKERS).fetchall()
    waited, took, recently, oldest = connection.one(_TIMES)
    each = _each(now, recently, simulated_seconds=simulated_seconds)
    return Metrics(
        counts=now.counts,
        average_processing_time=_whole(_mean(now.seconds_to_completion, now.counts[Status.COMPLETED])),
        estimated_processing_time=_estimate(now, each, slots=slots),
        live_workers=workers,
        live_slots=slots,
        live_handlers=[LiveHandler(*each) for _, *each in handlers],
        paused=paused,
        arrival_rate=now.arrival_rate,
        completion_rate=now.completion_rate,
        wait=Percentiles(*(waited or (None, None, None))),
        processing=Percentiles(*(took or (None, None, None))),
        oldest_pending_seconds=oldest,
    )


def _each(now: Tally, recently: float | None, *, simulated_seconds: float) -> Decimal:
    """Return how many seconds an order takes in a slot: of late, else ever, else as it is simulated."""
    if recently is None and now.timed:
        return _mean(now.seconds_in_slot, now.timed)
    return Decimal(str(simulated_seconds if recently is None else recently))


def _estimate(now: Tally, each: Decimal, *, slots: int) -> int:
    ahead = now.counts[Status.PENDING] + now.counts[Status.PROCESSING]
    return _whole(ahead * each / max(slots, 1))


def _mean(total: Decimal, count: int) -> Decimal:
    return total / count if count else Decimal(0)


def _whole(seconds: Decimal) -> int:
    return int(seconds.quantize(Decimal(1), rounding=ROUND_HALF_UP))
