"""What the database does not take is not said to be placed, and leaves no idempotency key."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from schema.errors import OrderNotTakenError, StatementRefusedError
from schema.order import NewOrder
from schema.queue import submit
from schema.queue.idempotency import submit_once
from schema.runtime.connection import Connection
from tests.rows import Queue

TEA = NewOrder(user_id="ada", item_ids=("tea", "milk"), total_amount=Decimal("250.75"))
CAKE = NewOrder(user_id="bob", item_ids=("cake",), total_amount=Decimal("3.00"))


def rows(queue: Queue) -> tuple[int, int]:
    """Count orders and keys."""
    return (queue.value("SELECT count(*) FROM orders"), queue.value("SELECT count(*) FROM idempotency_keys"))


@pytest.fixture
def trigger(queue: Queue) -> Iterator[Callable[[str], None]]:
    """Give the table of orders a trigger of its user's, until the test is over."""

    def install(body: str) -> None:
        queue.connection.execute(f"""
            CREATE FUNCTION users_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
            CREATE TRIGGER users_own BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION users_own();
        """)

    yield install
    queue.connection.execute("DROP FUNCTION IF EXISTS users_own CASCADE")


@pytest.fixture
def rule(queue: Queue) -> Iterator[Callable[[str], None]]:
    """The same with a rule."""

    def install(condition: str) -> None:
        queue.connection.execute(
            f"CREATE RULE users_own AS ON INSERT TO orders WHERE {condition} DO INSTEAD NOTHING"
        )

    yield install
    queue.connection.execute("DROP RULE IF EXISTS users_own ON orders")


def test_order_that_a_trigger_drops_is_an_error(queue: Queue, trigger: Callable[[str], None]) -> None:
    trigger("RETURN NULL;")

    with pytest.raises(OrderNotTakenError):
        submit.submit(queue.connection, TEA)

    assert rows(queue) == (0, 0)


def test_order_that_a_trigger_drops_leaves_its_key_unused(
    queue: Queue, trigger: Callable[[str], None]
) -> None:
    trigger("RETURN CASE WHEN NEW.user_id <> 'ada' THEN NEW END;")

    with pytest.raises(OrderNotTakenError):
        submit_once(queue.connection, TEA, key="k")
    assert rows(queue) == (0, 0)

    assert not submit_once(queue.connection, CAKE, key="k").replayed
    assert rows(queue) == (1, 1)


def test_order_that_a_trigger_takes_under_another_id_leaves_its_key_unused(
    queue: Queue, trigger: Callable[[str], None]
) -> None:
    trigger("NEW.order_id = gen_random_uuid(); RETURN NEW;")

    with pytest.raises(OrderNotTakenError):
        submit_once(queue.connection, TEA, key="k")

    assert rows(queue) == (0, 0)


def test_order_that_a_rule_swallows_is_an_error_and_leaves_no_key(
    queue: Queue, rule: Callable[[str], None]
) -> None:
    rule("NEW.user_id = 'ada'")

    with pytest.raises(OrderNotTakenError):
        submit.submit(queue.connection, TEA)
    # PostgreSQL knows no such rule where a key comes first: it refuses the statement as a whole.
    with pytest.raises(StatementRefusedError, match="FeatureNotSupported"):
        submit_once(queue.connection, TEA, key="k")

    assert rows(queue) == (0, 0)


def test_duplicate_that_waits_for_an_order_that_is_dropped_is_dropped_too(
    queue: Queue,
    trigger: Callable[[str], None],
    connect: Callable[[], Connection],
    in_thread: Any,
    wait_until: Callable[..., Any],
) -> None:
    trigger("PERFORM pg_advisory_xact_lock(1); RETURN NULL;")
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT pg_advisory_xact_lock(1)")
    calls = [in_thread(submit_once, connect(), TEA, key="k") for _ in range(2)]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event IN ('advisory', 'transactionid')"
    )
    wait_until(lambda: queue.value(waiting) == 2)

    holder.execute("COMMIT")

    assert [type(call.exception()) for call in calls] == [OrderNotTakenError] * 2
    assert rows(queue) == (0, 0)


def test_other_column_that_a_trigger_leaves_empty_is_not_taken_for_a_dropped_order(
    queue: Queue, trigger: Callable[[str], None]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (entry text NOT NULL)")
    trigger("INSERT INTO ledger VALUES (NULL); RETURN NEW;")

    with pytest.raises(StatementRefusedError, match="NotNullViolation"):
        submit_once(queue.connection, TEA, key="k")

    assert rows(queue) == (0, 0)
