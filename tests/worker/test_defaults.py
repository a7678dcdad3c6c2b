"""What a worker promises whatever a database's defaults are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schema import migrate
from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.conftest import Alter
from tests.servers import temporary_server
from tests.worker.conftest import Queue, StartWorker

BOOKS = """
def handle(order, context):
    context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
"""
NOTES = "handle = noted"
SETS = """
def handle(order, context):
    context.transaction().execute("SET LOCAL synchronous_commit = off")
    context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
"""

OTHERS = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "row_security": "off",
    "array_nulls": "off",
    "extra_float_digits": "-15",
    "lock_timeout": "1ms",
    "idle_session_timeout": "50ms",
    "statement_timeout": "1s",
}


@pytest.fixture
def forgetful_server(store: Path) -> Iterator[Server]:
    """A server that leaves what is committed asynchronously in memory for ten seconds."""
    with temporary_server(store=store, wal_writer_delay="10s") as server:
        server.ensure_running()
        yield server


@pytest.mark.parametrize("handler", [NOTES, BOOKS, SETS])
def test_completions_survive_a_crash_where_commits_are_asynchronous_by_default(
    start_worker: StartWorker, forgetful_server: Server, wait_until: Callable[..., Any], handler: str
) -> None:
    url = forgetful_server.url
    migrate.upgrade(url)
    with Connection.open(url, name="test") as connection:
        connection.execute("CREATE TABLE ledger (order_id uuid)")
        connection.execute("ALTER DATABASE orders SET synchronous_commit = off")
        queue = Queue(connection, wait_until)
        # Orders that go on meanwhile would flush what was committed before them.
        worker = start_worker(handler, url=url, ORDERS_LEASE_SECONDS=3600)
        queue.submit(5)
        queue.until_all("completed")
        before = _ends(queue)
        worker.process.kill()
        forgetful_server.stop("immediate")

    forgetful_server.ensure_running()

    with Connection.open(url, name="test") as connection:
        assert _ends(Queue(connection, wait_until)) == before


def _ends(queue: Queue) -> list[Any]:
    return queue.all("SELECT order_id, status, finished_at FROM orders ORDER BY order_id")


@pytest.mark.direct("its sessions are its own, with settings")
def test_worker_works_whatever_the_defaults_of_its_database_are(
    start_worker: StartWorker, queue: Queue, alter: Alter
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    alter(**OTHERS)
    failing = BOOKS + "    if order.attempt == 1: raise ValueError\n"
    worker = start_worker(failing)
    queue.submit(3)

    queue.until_all("completed")

    assert queue.all("SELECT outcome, count(*) FROM attempts GROUP BY outcome") == [("raised", 3)]
    assert queue.one("SELECT count(*) FROM ledger") == 3
    assert worker.stop() == 0
    assert [line for line in worker.warnings if "ValueError" not in line] == []
