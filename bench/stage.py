"""Where the measuring happens: a temporary server with default settings, pgbench, and worker processes."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.request import urlopen

import psycopg

from orders_api.server import THREADS
from schema import migrate
from schema.embedded import binaries
from schema.embedded.server import Server
from schema.queue import tally
from schema.states import FINAL

FLOORS = Path(__file__).parent / "floors"

HANDLERS = """
import time


def nothing(order, context):
    pass


def stamp(order, context):
    now = time.time()
    with open("stamps", "a") as stamps:
        stamps.write(f"{order.user_id} {now}\\n")


def ledger(order, context):
    context.transaction().execute(
        "INSERT INTO bench_ledger (order_id, amount) VALUES (%s, %s)", (order.order_id, order.total_amount)
    )
"""

LEDGER = """
CREATE TABLE bench_ledger (
    order_id uuid NOT NULL,
    amount numeric(14, 2) NOT NULL
)
"""

# With ids of version 7, as the API makes them.
FILL = """
INSERT INTO {table} (order_id, user_id, item_ids, total_amount)
SELECT uuidv7(), gen_random_uuid(),
       ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()]::text[], 150.75
FROM generate_series(1, %s)
"""

HISTORY_PART = 500_000

HISTORY = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, attempt, attempt_limit, worker_id,
                    started_at, finished_at)
SELECT uuidv7(), gen_random_uuid(),
       ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()]::text[], 150.75, 'completed', 1, 5,
       'history', clock_timestamp(), clock_timestamp()
FROM generate_series(1, %s)
"""

RATE = """
SELECT count(*) / EXTRACT(epoch FROM max(finished_at) - min(started_at))
FROM {table}
WHERE status = 'completed'
"""

RATE_OF_THE_LAST = """
SELECT count(*) / EXTRACT(epoch FROM max(finished_at) - min(started_at))
FROM (
    SELECT started_at, finished_at
    FROM orders
    WHERE started_at IS NOT NULL
      AND status = 'completed'
    ORDER BY started_at DESC
    LIMIT %s
) AS last
"""

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-api'"

GIVE_UP_SECONDS = 600.0
START_SECONDS = 30.0


class Api(NamedTuple):
    """Where it answers, and as which process."""

    url: str
    pid: int


class Stage:
    """A server of its own, migrated, with the floors' bare tables beside ours."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="orders-bench-"))
        self._home.chmod(0o755)
        (self._home / "handlers.py").write_text(HANDLERS)
        self._server = Server(self._home)

    def __enter__(self) -> Self:
        """Start the server."""
        self.url = self._server.ensure_running()
        migrate.upgrade(self.url)
        with self.connect() as connection:
            connection.execute(LEDGER)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and remove all of it."""
        self._server.stop(mode="immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    def connect(self, url: str = "") -> "psycopg.Connection[tuple[Any, ...]]":
        """Open a connection in autocommit mode, to our database or another one."""
        return psycopg.connect(url or self.url, autocommit=True)

    def fill(self, count: int, *, finished: int = 0) -> None:
        """Put a fresh line of pending orders into our emptied tables, behind so many finished ones."""
        with self.connect() as connection:
            connection.execute("TRUNCATE orders, workers, attempts, idempotency_keys, imports, bench_ledger")
            for begun in range(0, finished, HISTORY_PART):
                connection.execute(HISTORY, (min(HISTORY_PART, finished - begun),))
            connection.execute(FILL.format(table="orders"), (count,))
            tally.fold(connection)
            connection.execute("VACUUM ANALYZE orders, tally_changes")
            connection.execute("CHECKPOINT")

    def fill_floor(self, count: int) -> None:
        """Make the bare tables anew and put as many orders into them."""
        with self.connect() as connection:
            connection.execute((FLOORS / "table.sql").read_text())
            connection.execute(FILL.format(table="floor_orders"), (count,))
            connection.execute("VACUUM ANALYZE floor_orders")
            connection.execute("CHECKPOINT")

    def rate(self, table: str) -> float:
        """Return orders a second, from the first start to the last finish."""
        with self.connect() as connection:
            row = connection.execute(RATE.format(table=table)).fetchone()
        assert row is not None
        return float(row[0])

    def rate_of_the_last(self, count: int) -> float:
        """Return orders a second of the completed ones that started last."""
        with self.connect() as connection:
            row = connection.execute(RATE_OF_THE_LAST, (count,)).fetchone()
        assert row is not None
        return float(row[0])

    def left(self) -> int:
        """Return how many orders are in no final state."""
        with self.connect() as connection:
            counts = tally.read(connection).counts
        return sum(count for status, count in counts.items() if status not in FINAL)

    def pgbench(self, script: str, *, clients: int, transactions: int, given: Mapping[str, object]) -> None:
        """Run a floor's script so many times in each client."""
        subprocess.run(
            [
                binaries.find() / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={clients}",
                f"--jobs={min(clients, 2)}",
                f"--transactions={transactions}",
                f"--file={FLOORS / script}",
                *[f"--define={name}={value}" for name, value in given.items()],
                self.url,
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "LD_LIBRARY_PATH": ""},
        )

    @property
    def folder(self) -> Path:
        """Where a question may put its files."""
        return self._home

    def psql(self, command: str) -> None:
        """Run one command of psql's."""
        subprocess.run(
            [binaries.find() / "psql", "--no-psqlrc", "--quiet", f"--command={command}", self.url],
            check=True,
            env={**os.environ, "LD_LIBRARY_PATH": ""},
        )

    def environment(self, **settings: str) -> dict[str, str]:
        """Return what a process of ours is started with: our database, no settings of the caller's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORDERS_", "PG"))}
        return {**kept, "DATABASE_URL": self.url, **settings}

    @contextmanager
    def api(self, module: str, *, processes: int = 1) -> Iterator[Api]:
        """Run the API, or a module in its place, until it is left; yield it when all of it answers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        settings = {"ORDERS_PORT": str(port), "ORDERS_API_PROCESSES": str(processes)}
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=self.environment(**settings), stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for_an_answer(url)
            self._wait_for_connections(processes)
            yield Api(url, process.pid)
        finally:
            process.terminate()
            process.wait()

    def _wait_for_connections(self, processes: int) -> None:
        """Wait until each of the API's processes has opened those that it has from its start on."""
        wanted = processes * THREADS
        give_up_at = time.monotonic() + START_SECONDS
        with self.connect() as connection:
            while connection.execute(CONNECTIONS).fetchone() != (wanted,):
                if time.monotonic() > give_up_at:
                    raise SystemExit(f"the API's processes did not open {wanted} connections")
                time.sleep(0.05)

    @contextmanager
    def workers(self, count: int, *, handler: str, slots: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """Run worker processes meanwhile."""
        settings = {"ORDERS_HANDLER": f"handlers:{handler}", "ORDERS_CONCURRENCY": str(slots)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "orders_worker"],
                cwd=self._home,
                env=self.environment(**settings),
                stderr=subprocess.DEVNULL,
            )
            for _ in range(count)
        ]
        try:
            yield processes
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()

    def wait_for_the_last(self) -> None:
        """Wait until every order is completed, asking seldom so as not to be in the way."""
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < give_up_at:
            if self.left() == 0:
                return
            time.sleep(0.5)
        raise SystemExit(f"the workers have not finished within {GIVE_UP_SECONDS:g} seconds")


def _wait_for_an_answer(url: str) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at:
        try:
            with urlopen(f"{url}/readyz", timeout=1):  # noqa: S310 - an address made above
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")
