"""Does a long history or a long line slow the queue down?

Load: a table of finished orders with a long line behind them, one worker with 100 slots that works off the
head of the line. Bound: the same where there is a short line and nothing else, in turns. A claim by itself
is timed in one connection that exchanges one order for the next, 2,000 times.
"""

import statistics
import time
from collections.abc import Iterator

from bench.measurement import Measurement, in_turns
from bench.stage import Stage
from bench.statements import exchange_times
from schema.queue import tally
from schema.runtime.connection import Connection
from schema.states import Status

FINISHED = 10_000_000
WAITING = 1_000_000
CLAIMS = 2000


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the drain and the claim's 99th percentile."""
    share = 1 if full else 20
    finished, waiting = FINISHED // share, WAITING // share
    part = 50_000 if full else 15_000
    case = f"{finished:,} finished, {waiting:,} in line"
    with Stage() as other:
        stage.fill(waiting, finished=finished)
        other.fill(0)
        rates = in_turns(lambda: drain(stage, part), lambda: _alone(other, part))
        yield Measurement("history", case, "orders/s", rates[0], "a short line alone", rates[1], 0.9)
        claims = in_turns(lambda: claim_p99(stage), lambda: _claim_alone(other))
        yield Measurement(
            "history",
            f"p99 of a claim, {case}",
            "ms",
            claims[0],
            "a short line alone",
            claims[1],
            1.2,
            less_is_better=True,
        )


def drain(stage: Stage, count: int) -> float:
    """Return orders a second while at least so many are worked off from the head of the line."""
    with Connection.open(stage.url, name="bench") as connection:
        left = _pending(connection) - count
        with stage.workers(1, handler="nothing", slots=100):
            while _pending(connection) > left:
                time.sleep(0.1)
    return stage.rate_of_the_last(count)


def claim_p99(stage: Stage) -> float:
    """Return the 99th percentile, in milliseconds, of exchanges of one order for the next."""
    with Connection.open(stage.url, name="bench") as connection:
        took = exchange_times(connection, count=CLAIMS, size=1)
    return 1000 * statistics.quantiles(took, n=100)[98]


def _alone(stage: Stage, count: int) -> float:
    stage.fill(count)
    return drain(stage, count)


def _claim_alone(stage: Stage) -> float:
    stage.fill(CLAIMS)
    return claim_p99(stage)


def _pending(connection: Connection) -> int:
    return tally.read(connection).counts[Status.PENDING]
