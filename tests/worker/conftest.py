import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pytest
from psycopg.rows import namedtuple_row

from schema import migrate
from schema.embedded.server import Server
from schema.order import NewOrder
from schema.queue import submit
from schema.runtime.connection import Connection
from tests.servers import temporary_server

NEW_ORDER = NewOrder("ada", ("tea", "cup"), Decimal("250.75"))

# As a shell does for its background jobs.
IGNORE_SIGINT = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]

# What the handlers of these tests are made of. They speak to the test through files in their working
# folder, because that works while the database is away too.
PRELUDE = """
import json, os, pathlib, threading, time
import psycopg
from orders_worker.handler import Cancelled, Reject


def note(order, what="begun", **more):
    line = {"order_id": str(order.order_id), "attempt": order.attempt, "pid": os.getpid(), "what": what}
    with open("notes", "ab", buffering=0) as notes:
        notes.write(json.dumps(line | more).encode() + b"\\n")


def wait_for(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.005)


def noted(order, context):
    note(order)


def gated(order, context):
    note(order)
    wait_for("gate")
    note(order, "ended")
"""


@dataclass
class Worker:
    """A real `orders-worker` process."""

    process: "subprocess.Popen[bytes]"
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def warnings(self) -> list[str]:
        """What it warned of, other than of the pooler that the tests may run with."""
        lines = [line for line in self.log.splitlines() if "WARN" in line]
        return [line for line in lines if "_behind_a_pooler" not in line]

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def dispose(self) -> None:
        if self.running:
            self.send(signal.SIGCONT)
            self.process.kill()
        self.wait()
        print(f"--- orders-worker {self.pid}\n{self.log}")


class StartWorker(Protocol):
    def __call__(
        self,
        handler: str = ...,
        *,
        url: str = ...,
        ready: bool = ...,
        ignore_sigint: bool = ...,
        **settings: object,
    ) -> Worker: ...


@pytest.fixture
def start_worker(tmp_path: Path, database_url: str, wait_until: Callable[..., Any]) -> Iterator[StartWorker]:
    """Start `python -m orders_worker` in tmp_path and, unless `ready` is false, wait until it is all there.

    `handler` is the body of a module whose `handle` (or `noted`, `gated` if it has none) is the handler.
    """
    with ExitStack() as stack:

        def start(
            handler: str = "handle = noted",
            *,
            url: str = database_url,
            ready: bool = True,
            ignore_sigint: bool = False,
            **settings: object,
        ) -> Worker:
            name = f"handler_{secrets.token_hex(4)}"
            (tmp_path / f"{name}.py").write_text(f"{PRELUDE}\n{handler}\n")
            given = {
                "ORDERS_HANDLER": f"{name}:handle",
                "ORDERS_LEASE_SECONDS": 2,
                "ORDERS_POLL_SECONDS": 0.1,
            }
            given |= {"ORDERS_BACKOFF_SECONDS": 0, "DATABASE_URL": url, **settings}
            log_path = tmp_path / f"{name}.log"
            with log_path.open("wb") as log:
                process = subprocess.Popen(
                    [*(IGNORE_SIGINT if ignore_sigint else []), sys.executable, "-m", "orders_worker"],
                    cwd=tmp_path,
                    env={**os.environ, **{key: str(value) for key, value in given.items()}},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            worker = Worker(process, log_path)
            stack.callback(worker.dispose)
            if ready:
                with Connection.open(url, name="test") as connection:
                    wait_until(lambda: _is_ready(connection, worker))
            return worker

        yield start


def _is_ready(connection: Connection, worker: Worker) -> bool:
    """Tell whether the worker is registered, its session lock held and its wake-up listening.

    Behind a pooler there is neither, and it says so.
    """
    assert worker.running, worker.log
    if not connection.direct:
        return "no_wake_up_behind_a_pooler" in worker.log
    held = "SELECT FROM workers WHERE pid = %s AND session_key IS NOT NULL"
    listening = """
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'orders-housekeeping'
    """
    return bool(connection.execute(held, [worker.pid]).rowcount and connection.execute(listening).rowcount)


@pytest.fixture
def notes(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return what the handlers noted so far, all or only `what`."""

    def read(what: str | None = None) -> list[dict[str, Any]]:
        path = tmp_path / "notes"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if what in (None, line["what"])]

    return read


@pytest.fixture
def open_gate(tmp_path: Path) -> Callable[..., None]:
    """Let the handlers that wait for a file of that name go on."""
    return lambda name="gate": (tmp_path / name).touch()


class Queue:
    """The orders of the test's database, as the test looks at them."""

    def __init__(self, connection: Connection, wait_until: Callable[..., Any]) -> None:
        self.connection = connection
        self._wait_until = wait_until

    def submit(self, count: int = 1) -> list[UUID]:
        with self.connection.transaction():
            return [submit.submit(self.connection, NEW_ORDER) for _ in range(count)]

    def submit_one(self) -> UUID:
        return self.submit()[0]

    def find(self, order_id: UUID) -> Any:
        with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            order = cursor.execute("SELECT * FROM orders WHERE order_id = %s", (order_id,)).fetchone()
        assert order is not None
        return order

    def one(self, statement: str, *values: Any) -> Any:
        row = self.connection.execute(statement, values).fetchone()
        return row[0] if row else None

    def all(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    def counts(self) -> dict[str, int]:
        return dict(self.all("SELECT status, count(*) FROM orders GROUP BY status"))

    def attempts(self, order_id: UUID) -> list[tuple[int, str]]:
        return self.all(
            "SELECT attempt, outcome FROM attempts WHERE order_id = %s ORDER BY attempt", order_id
        )

    def worker_id(self, worker: Worker) -> str | None:
        """Return the id under which the process lives now."""
        found: str | None = self.one(
            "SELECT worker_id FROM workers WHERE pid = %s AND dead_at IS NULL ORDER BY started_at DESC",
            worker.pid,
        )
        return found

    def until(self, order_id: UUID, status: str, *, seconds: float = 30) -> Any:
        self._wait_until(lambda: self.find(order_id).status == status, seconds=seconds)
        return self.find(order_id)

    def until_all(self, status: str, *, seconds: float = 30) -> None:
        """Wait until every order is in that state."""
        self._wait_until(lambda: set(self.counts()) <= {status}, seconds=seconds)

    def terminate(self, application_name: str) -> int:
        """End the sessions of that name on this database; tell how many there were."""
        return len(
            self.all(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s",
                application_name,
            )
        )


@pytest.fixture
def queue(connection: Connection, wait_until: Callable[..., Any]) -> Queue:
    return Queue(connection, wait_until)


class StartBusyWorker(Protocol):
    def __call__(self, orders: int = ..., **given: Any) -> tuple[Worker, list[UUID]]: ...


@pytest.fixture
def start_busy_worker(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> StartBusyWorker:
    """Start a worker with a slot for each of so many orders, whose handlers then all wait for the gate.

    It takes what `start_worker` takes, and returns the worker and the orders' ids.
    """

    def start(orders: int = 1, **given: Any) -> tuple[Worker, list[UUID]]:
        worker = start_worker("handle = gated", ORDERS_CONCURRENCY=orders, **given)
        order_ids = queue.submit(orders)
        wait_until(lambda: len(notes("begun")) == orders)
        return worker, order_ids

    return start


@pytest.fixture
def private_server(store: Path) -> Iterator[Server]:
    """A server of the test's own, which it may stop and kill."""
    with temporary_server(store=store) as server:
        server.ensure_running()
        yield server


@pytest.fixture
def private_url(private_server: Server) -> str:
    """A migrated database on the private server."""
    migrate.upgrade(private_server.url)
    return private_server.url
