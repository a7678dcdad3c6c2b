from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from schema.errors import DatabaseUnavailableError, KeyReusedError
from schema.order import NewOrder, Placed
from schema.queue import idempotency, submit
from schema.queue.idempotency import submit_once
from schema.runtime.connection import Connection
from tests.rows import Queue

TEA = NewOrder(user_id="ada", item_ids=("tea", "milk"), total_amount=Decimal("250.75"))
CAKE = NewOrder(user_id="ada", item_ids=("cake",), total_amount=Decimal("3.00"))


def stored(queue: Queue) -> int:
    return int(queue.value("SELECT count(*) FROM orders"))


def keys(queue: Queue) -> list[str]:
    found = queue.value("SELECT array_agg(idempotency_key ORDER BY idempotency_key) FROM idempotency_keys")
    return found or []


def waits(queue: Queue) -> Callable[[], bool]:
    """Tell whether a session of this database waits for another's transaction to end."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'transactionid'"
    )
    return lambda: queue.value(statement) == 1


def test_new_key_places_a_whole_order(queue: Queue) -> None:
    placed = submit_once(queue.connection, TEA, key="k")

    row = queue.row(placed.order_id)
    assert not placed.replayed
    assert (row.user_id, row.item_ids, row.total_amount) == ("ada", ["tea", "milk"], Decimal("250.75"))
    assert (row.status, row.attempt) == ("pending", 0)
    assert keys(queue) == ["k"]


def test_same_key_and_order_is_the_first_order_again(queue: Queue) -> None:
    placed = submit_once(queue.connection, TEA, key="k")

    again = submit_once(queue.connection, TEA, key="k")

    assert again == Placed(placed.order_id, replayed=True)
    assert stored(queue) == 1


def test_other_key_is_another_order(queue: Queue) -> None:
    first = submit_once(queue.connection, TEA, key="k")
    second = submit_once(queue.connection, TEA, key="K")

    assert not second.replayed
    assert first.order_id != second.order_id
    assert submit_once(queue.connection, TEA, key="k") == Placed(first.order_id, replayed=True)
    assert submit_once(queue.connection, TEA, key="K") == Placed(second.order_id, replayed=True)


@pytest.mark.parametrize(
    "other",
    [
        NewOrder("bob", ("tea", "milk"), Decimal("250.75")),
        NewOrder("ada", ("milk", "tea"), Decimal("250.75")),
        NewOrder("ada", ("teamilk",), Decimal("250.75")),
        NewOrder("ada", ("tea,milk",), Decimal("250.75")),
        NewOrder("ada", ('tea", "milk',), Decimal("250.75")),
        NewOrder("ada", ("tea", "milk", "milk"), Decimal("250.75")),
        NewOrder("adatea", ("milk",), Decimal("250.75")),
        NewOrder("ada", ("tea", "milk"), Decimal("250.76")),
        NewOrder("ada", ("tea", "milk2"), Decimal("50.75")),
    ],
)
def test_key_that_came_with_another_order_is_refused_and_places_nothing(
    queue: Queue, other: NewOrder
) -> None:
    submit_once(queue.connection, TEA, key="k")

    with pytest.raises(KeyReusedError):
        submit_once(queue.connection, other, key="k")

    assert stored(queue) == 1
    assert keys(queue) == ["k"]


@pytest.mark.parametrize("amount", ["1", "1.0", "1.00", "1e0", "0.1E1"])
def test_amount_may_be_written_with_other_digits(queue: Queue, amount: str) -> None:
    submit_once(queue.connection, NewOrder("ada", ("tea",), Decimal("1.00")), key="k")

    again = submit_once(queue.connection, NewOrder("ada", ("tea",), Decimal(amount)), key="k")

    assert again.replayed


def test_order_that_the_table_refuses_leaves_no_key(queue: Queue, refused: Callable[..., str | None]) -> None:
    nothing = NewOrder(user_id="", item_ids=("tea",), total_amount=Decimal(1))

    constraint = refused(lambda: submit_once(queue.connection, nothing, key="k"))

    assert constraint == "orders_user_id_has_1_to_255_characters"
    assert keys(queue) == []


def test_order_may_be_gone_when_its_key_comes_again(queue: Queue) -> None:
    placed = submit_once(queue.connection, TEA, key="k")
    queue.connection.execute("DELETE FROM orders")

    assert submit_once(queue.connection, TEA, key="k") == Placed(placed.order_id, replayed=True)


def test_duplicate_waits_for_the_first_and_gets_its_order(
    queue: Queue, connect: Callable[[], Connection], in_thread: Any, wait_until: Callable[..., Any]
) -> None:
    first, second = connect(), connect()
    first.execute("BEGIN")
    placed = submit_once(first, TEA, key="k")
    duplicate = in_thread(submit_once, second, TEA, key="k")
    wait_until(waits(queue))

    first.execute("COMMIT")

    assert duplicate.result() == Placed(placed.order_id, replayed=True)
    assert stored(queue) == 1


def test_duplicate_of_an_order_that_was_rolled_back_places_it(
    queue: Queue, connect: Callable[[], Connection], in_thread: Any, wait_until: Callable[..., Any]
) -> None:
    first, second = connect(), connect()
    first.execute("BEGIN")
    placed = submit_once(first, TEA, key="k")
    duplicate = in_thread(submit_once, second, TEA, key="k")
    wait_until(waits(queue))

    first.execute("ROLLBACK")

    assert not duplicate.result().replayed
    assert duplicate.result().order_id != placed.order_id
    assert queue.value("SELECT array_agg(order_id) FROM orders") == [duplicate.result().order_id]


def test_duplicate_of_an_order_whose_session_died_places_it(
    queue: Queue, connect: Callable[[], Connection], in_thread: Any, wait_until: Callable[..., Any]
) -> None:
    first, second = connect(), connect()
    first.execute("BEGIN")
    submit_once(first, TEA, key="k")
    duplicate = in_thread(submit_once, second, TEA, key="k")
    wait_until(waits(queue))

    session = queue.value(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    first.close()

    assert session
    assert not duplicate.result().replayed
    assert queue.value("SELECT array_agg(order_id) FROM orders") == [duplicate.result().order_id]


def test_duplicate_with_another_order_waits_and_is_refused(
    queue: Queue, connect: Callable[[], Connection], in_thread: Any, wait_until: Callable[..., Any]
) -> None:
    first, second = connect(), connect()
    first.execute("BEGIN")
    submit_once(first, TEA, key="k")
    duplicate = in_thread(submit_once, second, CAKE, key="k")
    wait_until(waits(queue))

    first.execute("COMMIT")

    assert isinstance(duplicate.exception(), KeyReusedError)
    assert stored(queue) == 1


def test_ticket_and_time_are_drawn_after_the_wait_for_a_duplicate(
    queue: Queue, connect: Callable[[], Connection], in_thread: Any, wait_until: Callable[..., Any]
) -> None:
    first, second = connect(), connect()
    first.execute("BEGIN")
    submit_once(first, TEA, key="k")
    duplicate = in_thread(submit_once, second, TEA, key="k")
    wait_until(waits(queue))
    meanwhile = submit.submit(queue.connection, CAKE)

    first.execute("ROLLBACK")

    waited, passed = queue.row(duplicate.result().order_id), queue.row(meanwhile)
    assert waited.seq > passed.seq
    assert waited.created_at > passed.created_at
    assert waited.queued_at > passed.queued_at


def test_key_that_is_pruned_while_it_is_looked_up_places_the_order(queue: Queue) -> None:
    old = submit_once(queue.connection, TEA, key="k")
    queue.connection.execute("UPDATE idempotency_keys SET created_at = '2001-01-01'")
    # Runs within the INSERT, also one that conflicts: the lookup that comes next finds nothing.
    queue.connection.execute(
        "CREATE FUNCTION prune_meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " DELETE FROM idempotency_keys WHERE created_at < '2002-01-01'; RETURN NULL; END $$;"
        " CREATE TRIGGER prune_meanwhile AFTER INSERT ON idempotency_keys"
        " EXECUTE FUNCTION prune_meanwhile()"
    )
    try:
        placed = submit_once(queue.connection, TEA, key="k")
    finally:
        queue.connection.execute("DROP FUNCTION prune_meanwhile CASCADE")

    assert not placed.replayed
    assert placed.order_id != old.order_id
    assert stored(queue) == 2


def test_key_that_is_always_gone_is_given_up(queue: Queue) -> None:
    queue.connection.execute(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        " CREATE TRIGGER never BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION never()"
    )
    try:
        with pytest.raises(DatabaseUnavailableError):
            submit_once(queue.connection, TEA, key="k")
    finally:
        queue.connection.execute("DROP FUNCTION never CASCADE")

    assert stored(queue) == 0


def test_keys_are_kept_for_24_hours_and_then_pruned(queue: Queue) -> None:
    for key, age in {"new": "0", "day": "23:59:00", "old": "24:00:01", "older": "1 year"}.items():
        submit_once(queue.connection, TEA, key=key)
        queue.connection.execute(
            "UPDATE idempotency_keys SET created_at = clock_timestamp() - %s::interval"
            " WHERE idempotency_key = %s",
            (age, key),
        )

    assert idempotency.prune(queue.connection) == 2
    assert keys(queue) == ["day", "new"]
    assert stored(queue) == 4


def test_old_key_that_is_not_yet_pruned_is_honoured(queue: Queue) -> None:
    placed = submit_once(queue.connection, TEA, key="k")
    queue.connection.execute("UPDATE idempotency_keys SET created_at = '2001-01-01'")

    assert submit_once(queue.connection, TEA, key="k") == Placed(placed.order_id, replayed=True)


def test_prune_is_bounded_takes_the_oldest_first_and_passes_locked_keys(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.connection.execute(
        "INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, created_at)"
        " SELECT 'k' || n, gen_random_uuid(), '', TIMESTAMPTZ '2001-01-01' + n * INTERVAL '1 second'"
        # The newest first: then the order in which they lie in the table is not the one that is asked for.
        " FROM generate_series(%s, 1, -1) AS n",
        (idempotency.LIMIT + 2,),
    )
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM idempotency_keys WHERE idempotency_key = 'k1' FOR UPDATE")

    assert idempotency.prune(queue.connection) == idempotency.LIMIT
    assert keys(queue) == ["k1", f"k{idempotency.LIMIT + 2}"]
    assert idempotency.prune(queue.connection) == 1
    assert idempotency.prune(queue.connection) == 0
