"""The product's statements by themselves: one connection, one after the other, no worker and no HTTP."""

import time
from decimal import Decimal

from bench.stage import Stage
from schema.order import Claim, NewOrder
from schema.queue import exchange, submit, workers
from schema.runtime.connection import Connection

INSERTS = 3000
EXCHANGES = 300


def inserts(stage: Stage) -> float:
    """Return inserts a second."""
    stage.fill(0)
    order = NewOrder(user_id="u" * 32, item_ids=("i" * 32,) * 3, total_amount=Decimal("150.75"))
    with Connection.open(stage.url, name="bench") as connection:
        began_at = time.perf_counter()
        for _ in range(INSERTS):
            submit.submit(connection, order)
        return INSERTS / (time.perf_counter() - began_at)


def exchanges(stage: Stage, size: int) -> float:
    """Return orders a second when so many are exchanged for as many others at a time."""
    stage.fill(EXCHANGES * size)
    with Connection.open(stage.url, name="bench") as connection:
        took = exchange_times(connection, count=EXCHANGES, size=size)
    return EXCHANGES * size / sum(took)


def exchange_times(connection: Connection, *, count: int, size: int) -> list[float]:
    """Exchange `size` orders for the next ones, `count` times; return the seconds that each took."""
    worker = workers.register(
        connection, host="bench", pid=1, slots=size, lease_seconds=3600, handler="", version=""
    )
    claims: list[Claim] = []
    took = []
    for free in (size,) * count + (0,):
        began_at = time.perf_counter()
        claims = exchange.exchange(
            connection,
            worker.worker_id,
            finished=[claim.fence for claim in claims],
            free=free,
            floor=claims[-1].seq if claims else 0,
            since=worker.at,
            max_attempts=5,
        ).claimed
        took.append(time.perf_counter() - began_at)
    workers.leave(connection, worker.worker_id)
    return took[:count]
