"""Run a handler in a test of its author's, and see what a worker would make of it.

ran = testing.run(work, testing.example_order(user_id="ada"), connection=connection)
assert ran.outcome == "completed"
"""

import inspect
from collections.abc import Awaitable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg

from orders_worker.attempt.event_loop import EventLoop
from orders_worker.attempt.outcome import failure, refuse_unfinished
from orders_worker.handler import Handler, Order
from schema.order import Claim


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of an order.

    `outcome` is `completed`, or as in `attempts.outcome`: `rejected`, `cancelled` or `raised`. `error` is
    what `orders.last_error` would have, and `exception` what the handler raised, both None after a
    completion. `retry_seconds` is the pause that a `Retry` asked for, else None.
    """

    outcome: str
    error: str | None = None
    retry_seconds: float | None = None
    exception: BaseException | None = field(default=None, compare=False)


def example_order(**changes: Any) -> Order:
    """Return an order with a new id; `changes` are fields of `orders_worker.handler.Order`."""
    now = datetime.now(UTC)
    example = Claim(
        order_id=uuid4(),
        attempt=1,
        attempt_limit=5,
        seq=1,
        user_id="ada",
        item_ids=["tea", "milk"],
        total_amount=Decimal("250.75"),
        created_at=now,
        started_at=now,
    )
    return example._replace(**changes)


def run(
    handler: Handler,
    order: Order | None = None,
    *,
    connection: psycopg.Connection[Any] | None = None,
    deadline: float | None = None,
    cancel_requested: bool = False,
) -> Ran:
    """Call the handler as a worker does, with `example_order()` by default; return what came of it.

    `context.transaction()` is a savepoint of `connection`. It is released when the handler returns, after a
    check of deferred constraints, and rolled back when it raises. So a test sees what a worker would have
    committed, and rolls it back at its end. `deadline` and `cancel_requested` are the context's.
    """
    order = order or example_order()
    context = _Context(order.attempt, str(order.order_id), connection, deadline, cancel_requested)
    try:
        with connection.transaction() if connection else nullcontext(), EventLoop() as loop:
            result = handler(order, context)
            if inspect.isawaitable(result):
                result = loop.run(_awaited(result))
            refuse_unfinished(result)
            if connection:
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except BaseException as error:  # noqa: BLE001 - as a worker does
        outcome, text, retry_seconds = failure(error)
        return Ran(outcome, text, retry_seconds, error)
    return Ran("completed")


async def _awaited(work: Awaitable[object]) -> object:
    return await work


@dataclass(slots=True)
class _Context:
    """What `orders_worker.handler.Context` says."""

    attempt: int
    idempotency_key: str
    connection: psycopg.Connection[Any] | None
    deadline: float | None
    cancel_requested: bool

    def transaction(self) -> psycopg.Connection[Any]:
        if self.connection is None:
            raise LookupError("the handler uses context.transaction(): give testing.run a connection")
        return self.connection
