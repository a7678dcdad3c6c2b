"""How fast does one worker work off a full line, beside the database doing the same with no Python?

Load: `ORDERS` (50,000) pending orders with a handler that does nothing, one worker process with
`ORDERS_CONCURRENCY=100`, on a temporary server with default settings. Bound: `pgbench` sending the very
same exchange statement with batches of 100, on the same server, in turns with the worker. Both are
measured by what the orders' rows say: all of them, over the time from the first start to the last
finish. Exits 1 if the worker's median is below half of pgbench's.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from schema import migrate
from schema.embedded.server import Server
from schema.exchange import EXCHANGE

COUNT = int(os.environ.get("ORDERS") or 50_000)
BATCH = 100
ROUNDS = 3
TARGET = 0.5

FILL = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), gen_random_uuid(),
       ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()]::text[], 150.75
FROM generate_series(1, %s)
"""

RATE = """
SELECT count(*) / EXTRACT(epoch FROM max(finished_at) - min(started_at))
FROM orders
WHERE status = 'completed'
"""


def main() -> int:
    """Measure in turns, print a row each and the ratio of the medians."""
    home = Path(tempfile.mkdtemp(prefix="orders-drain-"))
    home.chmod(0o755)
    server = Server(home)
    try:
        url = server.ensure_running()
        migrate.upgrade(url)
        rates = {"pgbench": [], "worker": []}
        for turn in range(ROUNDS):
            for name, drain in (("pgbench", pgbench), ("worker", worker)):
                fill(url)
                drain(server, url)
                rates[name].append(rate(url))
                print(f"round {turn + 1}  {name:8} {rates[name][-1]:8,.0f} orders/s", flush=True)
    finally:
        server.stop(mode="immediate")
        shutil.rmtree(home, ignore_errors=True)
    floor, ours = statistics.median(rates["pgbench"]), statistics.median(rates["worker"])
    print(f"median   worker / pgbench = {ours:,.0f} / {floor:,.0f} = {ours / floor:.2f} (at least {TARGET})")
    return 0 if ours >= TARGET * floor else 1


def fill(url: str) -> None:
    """Put a fresh line of pending orders into an empty table."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE orders, workers")
        connection.execute(FILL, (COUNT,))
        connection.execute("INSERT INTO workers (worker_id, slots) VALUES ('pgbench', 100)")
        connection.execute("VACUUM ANALYZE orders")
        connection.execute("CHECKPOINT")


def pgbench(server: Server, url: str) -> None:
    """Drain with pgbench: each exchange hands in what the one before it claimed."""
    script = Path(tempfile.mkstemp(suffix=".sql")[1])
    script.write_text(pgbench_script())
    exchanges = COUNT // BATCH + 2
    given = {"order_ids": "{}", "attempts": "{}", "floor": 0, "free": BATCH, "max_attempts": 5}
    given |= {"worker_id": "pgbench", "since": "-infinity"}
    options = [f"--define={name}={value}" for name, value in given.items()]
    command = [server.programs / "pgbench", "--no-vacuum", "--protocol=prepared", "--client=1", *options]
    environment = {**os.environ, "LD_LIBRARY_PATH": ""}
    subprocess.run(
        [*command, f"--transactions={exchanges}", f"--file={script}", url],
        check=True,
        capture_output=True,
        env=environment,
    )
    script.unlink()


def pgbench_script() -> str:
    """Return our statement with pgbench's variables, its answer folded into those of the next one."""
    statement = EXCHANGE
    for name in ("order_ids", "attempts", "worker_id", "free", "floor", "max_attempts", "since"):
        statement = statement.replace(f"%({name})s", f":{name}")
    head, answer = statement.rsplit("\n)\nSELECT ", 1)
    return f"""{head}
),
answer AS (
SELECT {answer}
)
SELECT COALESCE(array_agg(order_id) FILTER (WHERE outcome = 'claimed'), '{{}}') AS order_ids,
       COALESCE(array_agg(attempt) FILTER (WHERE outcome = 'claimed'), '{{}}') AS attempts,
       COALESCE(max(seq) + 1, 0) AS floor
FROM answer
\\gset
"""


def worker(_: Server, url: str) -> None:
    """Drain with a real worker process whose handler returns at once."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nothing.py").write_text("def work(order, context):\n    pass\n")
        settings = {"ORDERS_HANDLER": "nothing:work", "ORDERS_CONCURRENCY": str(BATCH), "DATABASE_URL": url}
        process = subprocess.Popen(
            [sys.executable, "-m", "orders_worker"],
            cwd=folder,
            env={**os.environ, **settings},
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_the_last(url)
        finally:
            process.terminate()
            process.wait()


def wait_for_the_last(url: str) -> None:
    """Wait until every order is completed, asking seldom so as not to be in the way."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1200):
            if connection.execute("SELECT count(*) FROM orders WHERE status = 'completed'").fetchone() == (
                COUNT,
            ):
                return
            time.sleep(0.5)
    raise SystemExit("the worker has not finished within ten minutes")


def rate(url: str) -> float:
    """Return orders a second, from the first start to the last finish."""
    with psycopg.connect(url) as connection:
        row = connection.execute(RATE).fetchone()
    assert row is not None
    return float(row[0])


if __name__ == "__main__":
    sys.exit(main())
