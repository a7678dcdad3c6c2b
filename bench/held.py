"""Does somebody's open report slow the queue down?

Load: a line that one worker with 100 slots works off while a transaction holds a snapshot from before it
began, so that nothing that was claimed can be cleared away. Bound: how fast the last 5,000 orders are done
beside the first 5,000, and the whole beside the same without the snapshot.
"""

import contextlib
from collections.abc import Iterator

from bench import drain
from bench.measurement import TURNS, Measurement
from bench.stage import Stage

ORDERS = 1_000_000
PART = 5000

# By the tickets, because claims go by them: of each part, from its first start to its last end.
PARTS = """
SELECT count(*) / EXTRACT(epoch FROM max(finished_at) - min(started_at))
FROM (SELECT started_at, finished_at FROM orders ORDER BY seq {order} LIMIT {count}) AS part
"""


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield both comparisons."""
    count = ORDERS if full else ORDERS // 10
    firsts, lasts, held, free = [], [], [], []
    for _ in range(1 if full else TURNS):
        free.append(drain.ours(stage, count, slots=100))
        stage.fill(count)
        with _snapshot(stage):
            held.append(drain.work_off(stage, slots=100))
        firsts.append(_rate(stage, "ASC"))
        lasts.append(_rate(stage, "DESC"))
    case = f"snapshot held, {count:,} orders"
    yield Measurement("held", case, "orders/s", held, "without it", free, 0.7)
    yield Measurement("held", f"last {PART:,}, {case}", "orders/s", lasts, f"first {PART:,}", firsts, 0.9)


@contextlib.contextmanager
def _snapshot(stage: Stage) -> Iterator[None]:
    with stage.connect() as report:
        report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT count(*) FROM workers")
        yield
        report.execute("ROLLBACK")


def _rate(stage: Stage, order: str) -> float:
    with stage.connect() as connection:
        row = connection.execute(PARTS.format(order=order, count=PART)).fetchone()
    assert row is not None
    return float(row[0])
