"""What users test their handlers with judges as a worker does."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from orders_worker import testing
from orders_worker.handler import Cancelled, Context, Order, Reject, Retry
from orders_worker.testing import Ran


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE debts (debtor text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        yield connection
        connection.rollback()


def raising(error: BaseException) -> Callable[[Order, Context], None]:
    def handle(_order: Order, _context: Context) -> None:
        raise error

    return handle


@pytest.mark.parametrize(
    ("error", "ran"),
    [
        (Reject("no stock"), Ran("rejected", "no stock")),
        (Cancelled(), Ran("cancelled", "Cancelled")),
        (Retry("not yet", after=30), Ran("raised", "not yet", 30.0)),
        (ValueError("broken"), Ran("raised", "ValueError: broken")),
        (SystemExit(7), Ran("raised", "SystemExit: 7")),
    ],
)
def test_what_a_handler_raises_is_judged(error: BaseException, ran: Ran) -> None:
    found = testing.run(raising(error))

    assert found == ran
    assert found.exception is error


def owe(order: Order, context: Context) -> str:
    context.transaction().execute("INSERT INTO debts VALUES (%s)", [order.user_id])
    return "ignored"


def debtors(connection: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in connection.execute("SELECT debtor FROM debts")]


def test_what_a_handler_writes_is_there_when_it_completes(connection: psycopg.Connection[Any]) -> None:
    ran = testing.run(owe, testing.example_order(user_id="bob"), connection=connection)

    assert ran == Ran("completed")
    assert debtors(connection) == ["bob"]


def test_what_a_handler_writes_is_gone_when_it_raises(connection: psycopg.Connection[Any]) -> None:
    def handle(order: Order, context: Context) -> None:
        owe(order, context)
        raise Reject("after all")

    assert testing.run(handle, connection=connection).outcome == "rejected"
    assert debtors(connection) == []


def test_constraint_that_is_checked_at_the_commit_fails_the_attempt(
    connection: psycopg.Connection[Any],
) -> None:
    def handle(order: Order, context: Context) -> None:
        owe(order, context)
        owe(order, context)

    ran = testing.run(handle, connection=connection)

    assert ran.outcome == "raised"
    assert isinstance(ran.exception, psycopg.errors.UniqueViolation)
    assert debtors(connection) == []


def test_handler_must_not_end_its_transaction(connection: psycopg.Connection[Any]) -> None:
    ran = testing.run(lambda _, context: context.transaction().commit(), connection=connection)

    assert ran.outcome == "raised"
    assert "commit" in str(ran.error)


def test_handler_that_awaits_is_awaited_and_one_that_yields_has_failed() -> None:
    async def awaits(_order: Order, context: Context) -> None:
        assert context.cancel_requested
        raise Cancelled

    assert testing.run(awaits, cancel_requested=True) == Ran("cancelled", "Cancelled")
    assert str(testing.run(lambda *_: (n for n in "ab")).error).startswith(
        "TypeError: the handler returned a gen"
    )


def test_missing_connection_is_named() -> None:
    assert "give testing.run a connection" in str(testing.run(owe).error)
