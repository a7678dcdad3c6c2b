"""What does a worker cost that has nothing to do?

Load: one worker process with default settings beside an empty line, for a minute. Bound: two transactions a
second on the database, and half a percent of a processor for the process.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench.measurement import Measurement
from bench.stage import Stage

WARM_SECONDS = 5

TRANSACTIONS = """
SELECT xact_commit + xact_rollback
FROM pg_stat_database
WHERE datname = current_database()
"""

OWN = 1
"""Of these between two looks, the look itself."""

# Sessions report to the statistics when they are idle again; a second later at most.
FLUSH_SECONDS = 1.5


def measure(stage: Stage, *, full: bool) -> Iterator[Measurement]:
    """Yield transactions a second, and the share of a processor in percent."""
    seconds = 60 if full else 20
    stage.fill(0)
    with stage.connect() as connection, stage.workers(1, handler="nothing", slots=1) as processes:
        time.sleep(WARM_SECONDS)
        transactions, cpu = _transactions(connection), _cpu_seconds(processes[0].pid)
        began_at = time.monotonic()
        time.sleep(seconds)
        transactions = _transactions(connection) - transactions - OWN
        cpu = _cpu_seconds(processes[0].pid) - cpu
        passed = time.monotonic() - began_at
    yield Measurement(
        "idle", "transactions", "/s", [transactions / passed], "wanted", [2.0], 1, less_is_better=True
    )
    yield Measurement(
        "idle", "the worker's processor", "%", [100 * cpu / passed], "wanted", [0.5], 1, less_is_better=True
    )


def _transactions(connection: "psycopg.Connection[tuple[Any, ...]]") -> int:
    time.sleep(FLUSH_SECONDS)
    row = connection.execute(TRANSACTIONS).fetchone()
    assert row is not None
    return int(row[0])


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
