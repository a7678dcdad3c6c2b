"""An order in any legal state, a worker in any condition, and the statements with their usual arguments."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from psycopg.rows import dict_row, namedtuple_row

from schema.errors import StatementRefusedError
from schema.order import Claim, Fence
from schema.queue import endings, exchange
from schema.queue.endings import Ended, Ending
from schema.queue.exchange import Exchanged
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from schema.uuid7 import uuid7

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

SHAPES: dict[str, dict[str, Any]] = {
    "pending": {},
    "processing": {"attempt": 1, "attempt_limit": 5, "worker_id": "w", "started_at": "now"},
    "retrying": {"attempt": 1, "attempt_limit": 5, "retry_at": "now"},
    "completed": {
        "attempt": 1,
        "attempt_limit": 5,
        "worker_id": "w",
        "started_at": "now",
        "finished_at": "now",
    },
    "failed": {"attempt": 5, "attempt_limit": 5, "finished_at": "now", "last_error": "it broke"},
    "cancelled": {"finished_at": "now", "cancel_requested_at": "now"},
}
"""What a row of each state needs besides an order's own columns."""

CHECK_VIOLATION = "23514"


class Queue:
    """A test's database: rows written by hand, and statements called with what they usually get."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def insert(self, status: str = "pending", **columns: Any) -> UUID:
        values = {
            "order_id": uuid7(),
            "user_id": "ada",
            "item_ids": ["tea"],
            "total_amount": 1,
            "status": status,
            **SHAPES[status],
            **columns,
        }
        self._insert("orders", values)
        return UUID(str(values["order_id"]))

    def line(self, count: int) -> list[UUID]:
        """Insert pending orders; return their ids by ticket."""
        return [self.insert() for _ in range(count)]

    def worker(self, worker_id: str = "w", **columns: Any) -> str:
        self._insert("workers", {"worker_id": worker_id, "lease_seconds": 600, **columns})
        return worker_id

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        names = ", ".join(values)
        places = ", ".join(f"%({name})s" for name in values)
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", values)

    def change(self, order_id: UUID, assignments: str) -> None:
        self.connection.execute(f"UPDATE orders SET {assignments} WHERE order_id = %s", (order_id,))

    def change_worker(self, worker_id: str, assignments: str) -> None:
        self.connection.execute(f"UPDATE workers SET {assignments} WHERE worker_id = %s", (worker_id,))

    def row(self, order_id: UUID) -> SimpleNamespace:
        return self._one("SELECT * FROM orders WHERE order_id = %s", order_id)

    def worker_row(self, worker_id: str) -> SimpleNamespace:
        return self._one("SELECT * FROM workers WHERE worker_id = %s", worker_id)

    def status(self, order_id: UUID) -> Status:
        return Status(self.row(order_id).status)

    def attempts(self, order_id: UUID) -> list[Any]:
        with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            statement = "SELECT * FROM attempts WHERE order_id = %s ORDER BY attempt"
            return cursor.execute(statement, (order_id,)).fetchall()

    def value(self, statement: str, *parameters: Any) -> Any:
        row = self.connection.execute(statement, parameters).fetchone()
        assert row is not None
        return row[0]

    def now(self) -> datetime:
        moment = self.value("SELECT clock_timestamp()")
        assert isinstance(moment, datetime)
        return moment

    def _one(self, statement: str, *parameters: Any) -> SimpleNamespace:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(statement, parameters).fetchone()
        assert row is not None
        return SimpleNamespace(**row)

    def exchange(
        self,
        worker_id: str = "w",
        *,
        finished: Iterable[Fence] = (),
        free: int = 0,
        idle: bool | None = True,
        floor: int = 0,
        since: datetime = LONG_AGO,
        max_attempts: int = 5,
        on: Connection | None = None,
    ) -> Exchanged:
        return exchange.exchange(
            on or self.connection,
            worker_id,
            finished=list(finished),
            free=free,
            idle=idle,
            floor=floor,
            since=since,
            max_attempts=max_attempts,
        )

    def claim(self, worker_id: str = "w", *, free: int = 1) -> list[Claim]:
        return self.exchange(worker_id, free=free).claimed

    def end(
        self,
        *fences: Fence,
        outcome: Outcome,
        worker_id: str = "w",
        error: str | None = None,
        retry_seconds: float = 10.0,
        on: Connection | None = None,
    ) -> Ended:
        ended = [Ending(fence, outcome, error, retry_seconds) for fence in fences]
        return endings.end(on or self.connection, worker_id, endings=ended)

    def snapshot(self) -> Any:
        """Return all orders, to compare with a later time."""
        return self.value("SELECT jsonb_agg(to_jsonb(orders) ORDER BY order_id) FROM orders")


@pytest.fixture
def queue(connection: Connection) -> Queue:
    return Queue(connection)


@pytest.fixture
def make_queue() -> type[Queue]:
    return Queue


@pytest.fixture
def in_thread() -> Any:
    """Run a call in a thread of its own; return its future."""
    with ThreadPoolExecutor(16) as threads:

        def submit(call: Callable[..., Any], *arguments: Any, **named: Any) -> "Future[Any]":
            return threads.submit(call, *arguments, **named)

        yield submit


@pytest.fixture
def lock(connect: Callable[[], Connection]) -> Callable[..., Connection]:
    """Lock an order's row in an open transaction, as a psql session would."""

    def take(order_id: UUID, form: str = "FOR UPDATE") -> Connection:
        connection = connect()
        connection.execute("BEGIN")
        connection.execute(f"SELECT FROM orders WHERE order_id = %s {form}", (order_id,))
        return connection

    return take


@pytest.fixture
def refused(queue: Queue) -> Callable[..., str | None]:
    """Make a change by hand; return the name of the constraint that refuses it, None if none does."""

    def attempt(change: Callable[[], Any]) -> str | None:
        try:
            with queue.connection.transaction():
                change()
        except StatementRefusedError as error:
            if error.sqlstate != CHECK_VIOLATION:
                raise
            return error.constraint
        return None

    return attempt


@pytest.fixture
def lives(connect: Callable[[], Connection]) -> Callable[[str], Connection]:
    """Hold a worker's session lock on a connection of its own."""

    def hold(worker_id: str) -> Connection:
        connection = connect()
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (worker_id,))
        return connection

    return hold
