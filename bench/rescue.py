"""How long after `kill -9` of a worker are its orders claimable again, and claimed again?

`KILLS` (200) workers at default settings, each holding an order, are killed in rounds of ten, every one
at a random moment of three seconds (`SEED` repeats them); two others live on and finish what comes back.
Both ends are the database's word on the same machine's clock: when the lost attempt was ended, and when
the next one was started. Exits 1 if any order was claimable later than the five seconds that
docs/guarantees.md promises, or if the workers did not get orders in time.
"""

import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from schema import migrate
from schema.embedded.server import Server
from schema.queue import wake

KILLS = int(os.environ.get("KILLS") or 200)
SEED = int(os.environ.get("SEED") or random.randrange(10**6))
ROUND = 10
SPREAD_SECONDS = 3.0
PROMISED_SECONDS = 5.0
CLAIM_SECONDS = 60.0
"""How long a round's workers may take to start and to hold an order each."""

FOREIGN = ("ORDERS_", "PG", "DATABASE_URL")
"""What of the caller's environment would change the workers that are measured."""

HANDLERS = """
import time

def hold(order, context):
    time.sleep(3600)

def finish(order, context):
    pass
"""

SUBMIT = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), 'ada', ARRAY['tea'], 250.75
FROM generate_series(1, %s)
"""

HOLDERS = """
SELECT pid, order_id
FROM workers
JOIN orders USING (worker_id)
WHERE status = 'processing'
  AND pid = ANY (%s)
"""

RESCUED = """
SELECT ended_at, orders.started_at
FROM attempts
JOIN orders USING (order_id)
WHERE order_id = %s
  AND attempts.attempt = 1
  AND outcome = 'rescued'
  AND status = 'completed'
"""


def main() -> int:
    """Kill round after round and print the percentiles."""
    print(f"KILLS={KILLS} SEED={SEED}", flush=True)
    rng = random.Random(SEED)
    home = Path(tempfile.mkdtemp(prefix="orders-rescue-"))
    home.chmod(0o755)
    (home / "handlers.py").write_text(HANDLERS)
    server = Server(home)
    survivors = []
    times: list[tuple[float, float]] = []
    try:
        url = server.ensure_running()
        migrate.upgrade(url)
        survivors = [start(home, url, "finish") for _ in range(2)]
        with psycopg.connect(url, autocommit=True) as connection:
            wait_for_a_lease()
            while len(times) < KILLS:
                times += kill_some(connection, home, url=url, rng=rng)
                print(f"{len(times):4} killed, the slowest {max(t for t, _ in times):.2f} s", flush=True)
    finally:
        for survivor in survivors:
            survivor.terminate()
            survivor.wait()
        server.stop(mode="immediate")
        shutil.rmtree(home, ignore_errors=True)
    return report(times)


def start(home: Path, url: str, handler: str) -> "subprocess.Popen[bytes]":
    """Start a worker at default settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return subprocess.Popen(
        [sys.executable, "-m", "orders_worker"],
        cwd=home,
        env={**inherited, "DATABASE_URL": url, "ORDERS_HANDLER": f"handlers:{handler}"},
        stderr=subprocess.DEVNULL,
    )


def wait_for_a_lease() -> None:
    """Let the server get older than a lease: on a younger one nobody is judged."""
    time.sleep(10)


def kill_some(
    connection: psycopg.Connection, home: Path, *, url: str, rng: random.Random
) -> list[tuple[float, float]]:
    """Kill one round of workers; return for each the seconds until claimable and until claimed again."""
    victims = {victim.pid: victim for victim in (start(home, url, "hold") for _ in range(ROUND))}
    try:
        held = hold_one_each(connection, list(victims))
        killed = {}
        begun = time.monotonic()
        for moment, pid in sorted((rng.uniform(0, SPREAD_SECONDS), pid) for pid in victims):
            time.sleep(max(begun + moment - time.monotonic(), 0))
            killed[pid] = datetime.now(UTC)
            victims[pid].kill()
    finally:
        for victim in victims.values():
            victim.kill()
            victim.wait()
    return [seconds_of(connection, held[pid], since=at) for pid, at in killed.items()]


def hold_one_each(connection: psycopg.Connection, pids: list[int]) -> dict[int, object]:
    """Submit orders until each of these workers has got one; return which."""
    give_up_at = time.monotonic() + CLAIM_SECONDS
    held: dict[int, object] = {}
    while len(held) < len(pids):
        if time.monotonic() > give_up_at:
            sys.exit(f"after {CLAIM_SECONDS:.0f} s only {len(held)} of {len(pids)} workers hold an order")
        connection.execute(SUBMIT, [2 * ROUND])
        wake.notify(connection)
        time.sleep(0.1)
        held = dict(connection.execute(HOLDERS, [pids]).fetchall())
    return held


def seconds_of(connection: psycopg.Connection, order_id: object, *, since: datetime) -> tuple[float, float]:
    """Wait until the order is done, and tell how long it took to come back and to be taken again.

    For ever, if it is not done within a minute.
    """
    give_up_at = time.monotonic() + 60
    while (row := connection.execute(RESCUED, [order_id]).fetchone()) is None:
        if time.monotonic() > give_up_at:
            return math.inf, math.inf
        time.sleep(0.05)
    claimable_at, claimed_at = row
    return (claimable_at - since).total_seconds(), (claimed_at - since).total_seconds()


def report(times: list[tuple[float, float]]) -> int:
    """Print what was found and judge it."""
    claimable, claimed = (sorted(each) for each in zip(*times, strict=True))
    for name, seconds in (("claimable again", claimable), ("claimed again", claimed)):
        print(
            f"{name:15} after p50 {statistics.median(seconds):.2f} s, p99 {percentile(seconds, 99):.2f} s,"
            f" at most {seconds[-1]:.2f} s"
        )
    late = sum(seconds > PROMISED_SECONDS for seconds in claimable)
    print(f"{late} of {len(claimable)} orders were claimable again later than after {PROMISED_SECONDS:.0f} s")
    return 1 if late else 0


def percentile(ascending: list[float], percent: int) -> float:
    """Return the value that this share of them does not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1]


if __name__ == "__main__":
    sys.exit(main())
