"""Requests that ask at the same time share a statement, and each is answered as if it were alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from orders_api.database.pool import Database
from orders_api.database.showing import Showing
from schema.errors import DatabaseUnavailableError
from schema.order import NewOrder
from schema.queue import submit
from schema.runtime.connection import Connection
from schema.uuid7 import uuid7
from tests.api.conftest import Gather

ORDER = NewOrder("ada", ("tea",), Decimal("1.50"))


class Counted(Database):
    """Counts how often a connection was lent."""

    lent = 0

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        self.lent += 1
        with super().connection() as connection:
            yield connection


@pytest.fixture
def database(database_url: str) -> Iterator[Counted]:
    with Counted(database_url, size=4, wait_seconds=10) as database:
        yield database


@pytest.fixture
def showing(database: Counted) -> Showing:
    """One whose requests wait for their turn as long as it takes."""
    return Showing(database, turn_seconds=60)


def test_questions_that_come_during_a_statement_share_the_next_one(
    showing: Showing, database: Counted, connection: Connection, gather: Gather
) -> None:
    placed = [submit.submit(connection, ORDER) for _ in range(10)]
    asked = [*placed, uuid7(), placed[0]]
    with gather(showing._coalescer, showing.show, first=placed[0], others=asked) as crowd:
        pass

    answers = [future.result(10) for future in crowd.others]
    assert f'"{placed[0]}"' in crowd.first.result(10)
    expected = [*map(str, placed), None, str(placed[0])]
    assert [answer and answer.split('"')[3] for answer in answers] == expected
    assert database.lent == 2


def test_all_who_share_a_statement_learn_that_it_failed(
    showing: Showing, connection: Connection, gather: Gather, held_up: Callable[[], list[int]]
) -> None:
    order_id = submit.submit(connection, ORDER)
    with gather(showing._coalescer, showing.show, first=order_id, others=[order_id] * 5) as crowd:
        connection.execute("SELECT pg_cancel_backend(%s)", [crowd.pid])
        with pytest.raises(DatabaseUnavailableError):
            crowd.first.result(10)
        connection.execute("SELECT pg_cancel_backend(%s)", held_up())
        for other in crowd.others:
            with pytest.raises(DatabaseUnavailableError):
                other.result(10)

    assert showing.show(order_id) is not None


def test_order_that_was_committed_before_the_question_is_found(
    database: Counted, threads: ThreadPoolExecutor
) -> None:
    showing = Showing(database)

    def place_and_look(_: int) -> bool:
        with database.connection() as connection:
            order_id = submit.submit(connection, ORDER)
        return str(order_id) in str(showing.show(order_id))

    assert all(threads.map(place_and_look, range(500)))


def test_question_that_has_waited_for_its_turn_is_asked_by_itself(
    database: Counted,
    connection: Connection,
    connect: Callable[[], Connection],
    threads: ThreadPoolExecutor,
    held_up: Callable[[], list[int]],
    wait_until: Callable[..., Any],
) -> None:
    order_id = submit.submit(connection, ORDER)
    showing = Showing(database, turn_seconds=0.05)
    with connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE orders")
        asked = [threads.submit(showing.show, order_id)]
        held_up()
        asked += [threads.submit(showing.show, order_id) for _ in range(3)]
        wait_until(lambda: len(held_up()) == 4)

    assert all(str(order_id) in str(future.result(10)) for future in asked)
