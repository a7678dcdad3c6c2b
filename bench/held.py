"""Does somebody's open report slow the queue down?

Load: a line that one worker with 100 slots works off while a transaction holds a snapshot from before it
began, so that nothing that was claimed can be cleared away. Bound: how fast the last 5,000 orders are done
beside the first 5,000, and the whole beside the same without the snapshot. When half is done an insert with a
smaller ticket than all others is committed late: how long until it starts?
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from bench import drain
from bench.measurement import TURNS, Measurement
from bench.stage import Stage

ORDERS = 1_000_000
PART = 5000
LATE_SECONDS = 10.0

# By the tickets, because claims go by them: of each part, from its first start to its last end.
PARTS = """
SELECT count(*) / EXTRACT(epoch FROM max(finished_at) - min(started_at))
FROM (SELECT started_at, finished_at FROM orders WHERE seq > 1 ORDER BY seq {order} LIMIT {count}) AS part
"""

LATE = """
INSERT INTO orders (order_id, seq, user_id, item_ids, total_amount)
VALUES (gen_random_uuid(), 1, 'late', '{tea}', 1)
"""


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield the three comparisons."""
    count = ORDERS if full else ORDERS // 10
    firsts, lasts, held, free, late = [], [], [], [], []
    for _ in range(1 if full else TURNS):
        free.append(drain.ours(stage, count, slots=100))
        stage.fill(count)
        with _snapshot(stage), _late_commit(stage, when_left=count // 2) as commits:
            held.append(drain.work_off(stage, slots=100))
        late.append(_start_after(stage, commits[0]))
        firsts.append(_rate(stage, "ASC"))
        lasts.append(_rate(stage, "DESC"))
    case = f"snapshot held, {count:,} orders"
    yield Measurement("held", case, "orders/s", held, "without it", free, 0.7)
    yield Measurement("held", f"last {PART:,}, {case}", "orders/s", lasts, f"first {PART:,}", firsts, 0.9)
    wanted = [LATE_SECONDS] * len(late)
    yield Measurement("held", f"late commit, {case}", "s", late, "wanted", wanted, 1, less_is_better=True)


@contextmanager
def _snapshot(stage: Stage) -> Iterator[None]:
    with stage.connect() as report:
        report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        report.execute("SELECT count(*) FROM workers")
        yield
        report.execute("ROLLBACK")


@contextmanager
def _late_commit(stage: Stage, *, when_left: int) -> Iterator[list[datetime]]:
    """Have an insert open that is committed when so many are left; yield a list that gets the time of it."""
    commits: list[datetime] = []
    with stage.connect() as late:
        late.execute("BEGIN")
        late.execute(LATE)

        def commit() -> None:
            while stage.left() > when_left:
                time.sleep(0.05)
            (now,) = late.execute("SELECT clock_timestamp()").fetchone() or ()
            late.execute("COMMIT")
            commits.append(now)

        thread = threading.Thread(target=commit)
        thread.start()
        yield commits
        thread.join()


def _start_after(stage: Stage, commit: datetime) -> float:
    with stage.connect() as connection:
        (started_at,) = connection.execute("SELECT started_at FROM orders WHERE seq = 1").fetchone() or ()
    return float((started_at - commit).total_seconds())


def _rate(stage: Stage, order: str) -> float:
    with stage.connect() as connection:
        row = connection.execute(PARTS.format(order=order, count=PART)).fetchone()
    assert row is not None
    return float(row[0])
