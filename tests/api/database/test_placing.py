"""Orders that arrive at the same time share a statement, and each is stored or fails as if it were alone."""

from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from orders_api.database.placing import OrderOutcomeUnknownError, Placing
from orders_api.database.pool import REPLY_SECONDS, Database
from schema.errors import DatabaseUnavailableError, OrderNotTakenError, StatementRefusedError
from schema.order import NewOrder
from schema.runtime.connection import Connection
from tests.api.conftest import Gather, Relay, Submitted

AWKWARD = ['"', "\\", '\\"', "{}", "a,b", "NULL", "", " ", "ж", "\n\t"]

TRIGGER = """
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    {body}
    RETURN NEW;
END $$;
CREATE TRIGGER judge BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION judge();
"""


@pytest.fixture
def database(database_url: str) -> Any:
    with Database(database_url, size=16, wait_seconds=10) as database:
        yield database


@pytest.fixture
def placing(database: Database, submitted: Callable[[], None]) -> Placing:
    """One whose requests wait for their turn as long as it takes."""
    return Placing(database, submitted, turn_seconds=60)


def make_order(user_id: str, *item_ids: str) -> NewOrder:
    return NewOrder(user_id, item_ids or ("tea",), Decimal("250.75"))


def by(placing: Placing) -> Callable[[NewOrder], UUID]:
    """Place orders there, for their ids."""
    return lambda order: placing.place(order).order_id


Arrive = Callable[[list[NewOrder]], "list[Future[UUID]]"]


@pytest.fixture
def arrive(placing: Placing, gather: Gather) -> Arrive:
    """Have orders arrive together, behind one of another's."""

    def all_at_once(orders: list[NewOrder]) -> "list[Future[UUID]]":
        with gather(placing._coalescer, by(placing), first=make_order("first"), others=orders) as crowd:
            pass
        assert crowd.first.result(10)
        return crowd.others

    return all_at_once


def users(connection: Connection) -> dict[str, UUID]:
    return dict(connection.execute("SELECT user_id, order_id FROM orders ORDER BY user_id").fetchall())


def test_orders_that_arrive_together_are_stored_by_one_statement(
    arrive: Arrive, connection: Connection
) -> None:
    arrived = arrive([make_order(f"ada {n}") for n in range(10)])

    order_ids = {f"ada {n}": future.result(10) for n, future in enumerate(arrived)}
    assert users(connection) == {**order_ids, "first": users(connection)["first"]}
    assert connection.execute("SELECT count(DISTINCT xmin::text) FROM orders").fetchone() == (2,)


def test_each_keeps_its_own_content(arrive: Arrive, connection: Connection) -> None:
    orders = [NewOrder(f"u{text}", (text, "tea", text), Decimal(n) / 4) for n, text in enumerate(AWKWARD)]

    ids = [future.result(10) for future in arrive(orders)]

    for order_id, order in zip(ids, orders, strict=True):
        row = connection.execute(
            "SELECT user_id, item_ids, total_amount, status, attempt FROM orders WHERE order_id = %s",
            [order_id],
        ).fetchone()
        assert row == (order.user_id, list(order.item_ids), order.total_amount, "pending", 0)


def test_order_that_is_refused_fails_alone(arrive: Arrive, connection: Connection) -> None:
    connection.execute(TRIGGER.format(body="IF NEW.user_id = 'eve' THEN RAISE 'no'; END IF;"))

    ada, eve, bob = arrive([make_order("ada"), make_order("eve"), make_order("bob")])

    with pytest.raises(StatementRefusedError, match="RaiseException: no"):
        eve.result(10)
    order_ids = [ada.result(10), bob.result(10)]
    assert [users(connection)[name] for name in ("ada", "bob")] == order_ids


def test_order_that_is_dropped_fails_alone(arrive: Arrive, connection: Connection) -> None:
    connection.execute(TRIGGER.format(body="IF NEW.user_id = 'eve' THEN RETURN NULL; END IF;"))

    ada, eve = arrive([make_order("ada"), make_order("eve")])

    with pytest.raises(OrderNotTakenError):
        eve.result(10)
    assert ada.result(10) == users(connection)["ada"]


def test_orders_beside_one_that_a_rule_drops_are_stored(arrive: Arrive, connection: Connection) -> None:
    connection.execute(
        "CREATE RULE judge AS ON INSERT TO orders WHERE NEW.user_id = 'eve' DO INSTEAD NOTHING"
    )

    ada, eve = arrive([make_order("ada"), make_order("eve")])

    with pytest.raises(OrderNotTakenError):
        eve.result(10)
    assert ada.result(10) == users(connection)["ada"]


def test_id_that_a_trigger_gives_is_the_one_that_is_told(arrive: Arrive, connection: Connection) -> None:
    connection.execute(TRIGGER.format(body="NEW.order_id = gen_random_uuid();"))

    arrived = arrive([make_order(name) for name in ("ada", "eve")])

    order_ids = [future.result(10) for future in arrived]
    assert [users(connection)[name] for name in ("ada", "eve")] == order_ids


def test_orders_whose_statement_takes_too_long_are_stored_one_by_one(
    placing: Placing,
    connection: Connection,
    gather: Gather,
    held_up: Callable[[], list[int]],
    wait_until: Callable[..., Any],
) -> None:
    names = ["ada", "bob", "eve"]
    others = [make_order(name) for name in names]
    with gather(placing._coalescer, by(placing), first=make_order("first"), others=others) as crowd:
        # As the server does when the time for a statement is over.
        connection.execute("SELECT pg_cancel_backend(%s)", [crowd.pid])
        assert isinstance(crowd.first.exception(10), DatabaseUnavailableError)
        wait_until(lambda: not placing._coalescer._waiting)
        connection.execute("SELECT pg_cancel_backend(%s)", held_up())
        wait_until(lambda: len(held_up()) == len(names))

    order_ids = dict(zip(names, [future.result(10) for future in crowd.others], strict=True))
    assert users(connection) == order_ids


def test_order_that_waits_for_a_lock_waits_alone(
    arrive: Arrive, placing: Placing, connection: Connection, connect: Callable[[], Connection]
) -> None:
    connection.execute("""
        CREATE TABLE users (user_id text PRIMARY KEY);
        INSERT INTO users VALUES ('first'), ('ada'), ('eve'), ('bob');
        ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users;
    """)
    with connect().transaction() as transaction:
        transaction.connection.execute("SELECT FROM users WHERE user_id = 'eve' FOR UPDATE")
        ada, eve = arrive([make_order("ada"), make_order("eve")])

        # Before the server would give the statement up.
        assert ada.result(REPLY_SECONDS * 0.8) == users(connect())["ada"]
        assert placing.place(make_order("bob")).order_id == users(connect())["bob"]
        assert not eve.done()

    assert eve.result(10) == users(connection)["eve"]


def test_outcome_of_all_is_unknown_when_their_connection_is_lost(
    relay: Relay,
    submitted: Submitted,
    connection: Connection,
    gather: Gather,
    held_up: Callable[[], list[int]],
    wait_until: Callable[..., Any],
) -> None:
    order = make_order("ada")
    # One connection: no other that was cut too can hide a second try.
    with Database(relay.url, size=1, wait_seconds=10) as database:
        placing = Placing(database, submitted, turn_seconds=60)
        with gather(placing._coalescer, by(placing), first=order, others=[order] * 3) as crowd:
            connection.execute("SELECT pg_cancel_backend(%s)", [crowd.pid])
            assert isinstance(crowd.first.exception(10), DatabaseUnavailableError)
            wait_until(lambda: not placing._coalescer._waiting)
            held_up()
            relay.cut()

            assert {type(other.exception(10)) for other in crowd.others} == {OrderOutcomeUnknownError}

        assert placing.place(make_order("bob")).order_id == users(connection)["bob"]
