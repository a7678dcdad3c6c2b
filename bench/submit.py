"""How fast do orders go in and are they looked up, over HTTP?

Load: 16 clients of wrk against one API process, or two. Bound: the same application with its statement left
out (`bare_api.py`), in turns; the 250 orders a second of the service that this one replaces; for two
processes our own one. The 99th percentile is compared with the median. A batch has 1,000 orders.
"""

from collections.abc import Iterator

from bench import wrk
from bench.measurement import TURNS, Measurement, in_turns
from bench.stage import Stage
from bench.wrk import Answers

CLIENTS = 16
REPLACED = 250.0
BATCHES = 20_000.0


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield a measurement for each case."""
    seconds = 20 if full else 6
    answers: list[Answers] = []

    def post(module: str = "orders_api", processes: int = 1) -> float:
        stage.fill(0)
        with stage.api(module, processes=processes) as api:
            answers.append(
                wrk.load(f"{api.url}/orders", clients=CLIENTS, seconds=seconds, script="order.lua")
            )
        return answers[-1].rate

    ours, bare = in_turns(post, lambda: post("bench.bare_api"))
    posted = answers[1::2]
    yield Measurement("submit", "POST /orders, 1 process", "orders/s", ours, "without its insert", bare, 0.65)
    yield Measurement(
        "submit", "POST /orders, 1 process", "orders/s", ours, "replaced", [REPLACED] * TURNS, 5
    )
    yield Measurement(
        "submit",
        "p99 of POST /orders",
        "ms",
        [each.p99 for each in posted],
        "its p50",
        [each.p50 for each in posted],
        4,
        less_is_better=True,
    )
    two, one = in_turns(lambda: post(processes=2), post)
    yield Measurement("submit", "POST /orders, 2 processes", "orders/s", two, "1 process", one, 1.15)
    yield Measurement(
        "submit", "POST /orders/batch", "orders/s", _batches(stage, seconds), "wanted", [BATCHES] * TURNS, 1
    )
    ours, bare = in_turns(
        lambda: _get(stage, "orders_api", seconds), lambda: _get(stage, "bench.bare_api", seconds)
    )
    yield Measurement("submit", "GET /orders/{order_id}", "orders/s", ours, "without its query", bare, 0.7)


def _batches(stage: Stage, seconds: int) -> list[float]:
    rates = []
    for _ in range(TURNS):
        stage.fill(0)
        with stage.api("orders_api") as api:
            answers = wrk.load(f"{api.url}/orders/batch", clients=2, seconds=seconds, script="batch.lua")
        rates.append(1000 * answers.rate)
    return rates


def _get(stage: Stage, module: str, seconds: int) -> float:
    stage.fill(1000)
    ids = stage.folder / "ids"
    with stage.connect() as connection:
        ids.write_text(
            "".join(f"{order_id}\n" for (order_id,) in connection.execute("SELECT order_id FROM orders"))
        )
    with stage.api(module) as api:
        return wrk.load(
            api.url, clients=CLIENTS, seconds=seconds, script="lookup.lua", given={"ORDER_IDS": str(ids)}
        ).rate
