"""How fast is a full line worked off?

Load: a line of pending orders and handlers that do nothing (or commit a row of their own), one worker
process or two. Bound: pgbench doing the same on a bare table with no Python (`floors/exchange.sql` with the
same batch, `floors/handler.sql`), in turns with ours; for two workers our own one. Both are measured by what
the rows say: all orders, over the time from the first start to the last finish.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.measurement import Measurement, in_turns
from bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Case:
    """A way to drain; the floor has the same batch. `share` of a full line is enough for it."""

    name: str
    slots: int
    bound: float
    share: float = 1.0


CASES = (
    Case("1 worker, 100 slots", 100, bound=0.8),
    Case("1 worker, 10 slots", 10, bound=0.8, share=0.4),
    Case("1 worker, 1 slot", 1, bound=0.8, share=0.1),
)


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield a measurement for each case."""
    line = 100_000 if full else 50_000
    for case in CASES:
        count = round(line * case.share)
        worker, floor = in_turns(
            lambda case=case, count=count: ours(stage, count, slots=case.slots),
            lambda case=case, count=count: _floor(stage, count, batch=case.slots),
        )
        yield Measurement("drain", case.name, "orders/s", worker, "pgbench", floor, case.bound)
    two, one = in_turns(lambda: ours(stage, line, slots=100, workers=2), lambda: ours(stage, line, slots=100))
    yield Measurement("drain", "2 workers, 100 slots each", "orders/s", two, "1 worker", one, 1.3)
    count = round(line * 0.2)
    worker, floor = in_turns(
        lambda: ours(stage, count, slots=10, handler="ledger"), lambda: _handler_floor(stage, count)
    )
    yield Measurement("drain", "10 slots, handler commits a row", "orders/s", worker, "pgbench", floor, 0.6)


def ours(stage: Stage, count: int, *, slots: int, workers: int = 1, handler: str = "nothing") -> float:
    """Return orders a second of our workers."""
    stage.fill(count)
    return work_off(stage, slots=slots, workers=workers, handler=handler)


def work_off(stage: Stage, *, slots: int, workers: int = 1, handler: str = "nothing") -> float:
    """Return orders a second of our workers, with the line as it is."""
    with stage.workers(workers, handler=handler, slots=slots):
        stage.wait_for_the_last()
    return stage.rate("orders")


def _floor(stage: Stage, count: int, *, batch: int) -> float:
    stage.fill_floor(count)
    # One to claim the first batch, one to complete the last.
    turns = count // batch + 2
    stage.pgbench("exchange.sql", clients=1, transactions=turns, given={"ids": "{}", "batch": batch})
    return stage.rate("floor_orders")


def _handler_floor(stage: Stage, count: int) -> float:
    stage.fill_floor(count)
    stage.pgbench("handler.sql", clients=10, transactions=count // 100, given={})
    return stage.rate("floor_orders")
