"""What do the metrics cost, and are they right?

Load: GET /metrics from one client, on a table with a long history and a long line; then orders go in and are
worked off, and when that has stopped the counts are compared with counting the rows. Bound: ten milliseconds
at the 99th percentile; no difference. What the tally's triggers cost is measured by dropping them: POST
/orders from 16 clients, and an insert, and exchanges of ten and of a hundred, each from one connection.
"""

import json
from collections.abc import Callable, Iterator
from urllib.request import urlopen

from bench import history, wrk
from bench.measurement import TURNS, Measurement, in_turns
from bench.stage import Stage
from bench.statements import exchanges, inserts

LIMIT_MS = 10.0

DROP = """
DROP TRIGGER IF EXISTS orders_tally_insert ON orders;
DROP TRIGGER IF EXISTS orders_tally_update ON orders
"""

COUNT = """
SELECT status, count(*)
FROM orders
GROUP BY status
"""


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the latency, the difference, and the costs."""
    share = 1 if full else 20
    finished, waiting = history.FINISHED // share, history.WAITING // share
    stage.fill(waiting, finished=finished)
    case = f"GET /metrics, {finished:,} finished, {waiting:,} in line"
    with stage.api("orders_api") as api:
        wrk.load(f"{api.url}/orders", clients=4, seconds=3, script="order.lua")
        history.drain(stage, 10_000)
        wrong = _difference(stage, api.url)
        took = [wrk.load(f"{api.url}/metrics", clients=1, seconds=5).p99 for _ in range(TURNS)]
    yield Measurement(
        "metrics", f"p99 of {case}", "ms", took, "wanted", [LIMIT_MS] * TURNS, 1, less_is_better=True
    )
    yield Measurement(
        "metrics", f"errors of {case}", "and 1", [1 + wrong], "none and", [1], 1, less_is_better=True
    )
    with Stage() as bare:
        with bare.connect() as connection:
            connection.execute(DROP)
        yield from _costs(stage, bare, seconds=20 if full else 5)


def _difference(stage: Stage, url: str) -> int:
    """Return by how many orders the counts that are shown are off."""
    with urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - an address of the stage's
        shown = json.load(answer)["status_counts"]
    with stage.connect() as connection:
        counted = {f"{status}_orders": count for status, count in connection.execute(COUNT)}
    return sum(abs(count - counted.get(name, 0)) for name, count in shown.items())


def _costs(stage: Stage, bare: Stage, *, seconds: int) -> Iterator[Measurement]:
    def post(where: Stage) -> float:
        where.fill(0)
        with where.api("orders_api") as api:
            return wrk.load(f"{api.url}/orders", clients=16, seconds=seconds, script="order.lua").rate

    def compare(case: str, rate: Callable[[Stage], float], bound: float) -> Measurement:
        ours, without = in_turns(lambda: rate(stage), lambda: rate(bare))
        return Measurement("metrics", case, "orders/s", ours, "without the tally", without, bound)

    yield compare("POST /orders", post, 0.9)
    yield compare("an insert", inserts, 0.8)
    yield compare("an exchange of 10", lambda where: exchanges(where, 10), 0.8)
    yield compare("an exchange of 100", lambda where: exchanges(where, 100), 0.8)
