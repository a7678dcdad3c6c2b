"""The pool answers at once, gives nothing broken away, and is whole again by itself."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from orders_api.database.pool import Database
from schema.errors import DatabaseUnavailableError, OutcomeUnknownError, StatementRefusedError
from schema.runtime.connection import Connection
from tests.api.conftest import Relay


def name_of_backend(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def works(database: Database) -> bool:
    try:
        with database.connection() as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except (DatabaseUnavailableError, OutcomeUnknownError):
        return False


def test_connection_commits_each_statement_by_itself(database: Database, connection: Connection) -> None:
    with database.connection() as lent:
        lent.execute("CREATE TABLE traces (mark integer)")
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (0,)


def test_call_is_refused_when_every_connection_is_taken(database_url: str) -> None:
    with Database(database_url, size=2, wait_seconds=10) as patient, ExitStack() as taken:
        for _ in range(2):
            taken.enter_context(patient.connection())
        patient._wait_seconds = 0.05

        with pytest.raises(DatabaseUnavailableError), patient.connection():
            pass


def test_returned_connection_is_lent_again(database_url: str) -> None:
    with Database(database_url, size=1, wait_seconds=10) as database:
        with database.connection() as first:
            pid = name_of_backend(first)
        with database.connection() as second:
            assert name_of_backend(second) == pid


@pytest.mark.direct("it ends a session by its process")
def test_connection_whose_backend_was_ended_meanwhile_is_never_lent(
    database_url: str, connection: Connection
) -> None:
    with Database(database_url, size=1, wait_seconds=10) as database:
        with database.connection() as lent:
            pid = name_of_backend(lent)
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))

        with database.connection() as lent:
            assert name_of_backend(lent) != pid


def test_connection_with_a_notice_to_read_is_lent_on(database_url: str, connection: Connection) -> None:
    with Database(database_url, size=1, wait_seconds=10) as database:
        with database.connection() as lent:
            pid = name_of_backend(lent)
            lent.execute("LISTEN gossip")
        connection.execute("NOTIFY gossip")

        with database.connection() as lent:
            assert name_of_backend(lent) == pid


def run(database: Database, *statements: str, first: Callable[[], None] = lambda: None) -> None:
    with database.connection() as lent:
        first()
        for statement in statements:
            lent.execute(statement)


def test_statement_on_a_connection_that_breaks_reports_it_as_lost(relay: Relay) -> None:
    with Database(relay.url, size=1, wait_seconds=10) as database, pytest.raises(OutcomeUnknownError):
        run(database, "SELECT 1", first=relay.cut)


def test_statement_that_is_cancelled_reports_the_database_as_unavailable(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        run(database, "SET statement_timeout = 1", "SELECT pg_sleep(10)")


@pytest.mark.direct("what it sets would stay for others")
def test_connection_to_a_server_turned_read_only_is_dropped(database_url: str) -> None:
    with Database(database_url, size=1, wait_seconds=10) as database:
        with database.connection() as lent:
            pid = name_of_backend(lent)
        with pytest.raises(DatabaseUnavailableError, match="read-only"):
            run(database, "SET default_transaction_read_only = on", "DELETE FROM orders")

        with database.connection() as lent:
            assert name_of_backend(lent) != pid


def test_mistake_in_a_statement_is_not_hidden(database: Database) -> None:
    with pytest.raises(StatementRefusedError, match="UndefinedTable"):
        run(database, "SELECT * FROM nowhere")


def test_pool_opened_while_the_database_is_away_works_once_it_is_back(
    relay: Relay, wait_until: Callable[..., Any]
) -> None:
    relay.away()
    with Database(relay.url, size=4, wait_seconds=0.2) as database:
        assert not works(database)

        relay.back()

        wait_until(lambda: works(database))


def test_pool_is_whole_again_after_the_database_was_away_for_long(
    relay: Relay, wait_until: Callable[..., Any]
) -> None:
    with Database(relay.url, size=4, wait_seconds=0.2) as database:
        wait_until(lambda: works(database))
        relay.away()
        # So long that the pool has given every connection up.
        wait_until(lambda: not works(database) and database._pool.get_stats()["pool_size"] == 0)

        relay.back()

        wait_until(lambda: works(database))
        with ExitStack() as taken:
            wait_until(lambda: _take(taken, database) and database._pool.get_stats()["pool_size"] == 4)


def _take(taken: ExitStack, database: Database) -> bool:
    try:
        taken.enter_context(database.connection())
    except DatabaseUnavailableError:
        return False
    return True


def test_absence_is_logged_once_and_so_is_the_return(
    relay: Relay, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., Any]
) -> None:
    with caplog.at_level("INFO", "orders_api"), Database(relay.url, size=2, wait_seconds=0.2) as database:
        wait_until(lambda: works(database))
        relay.away()
        for _ in range(3):
            assert not works(database)
        relay.back()
        wait_until(lambda: works(database))

    events = [record.msg for record in caplog.records if record.name == "orders_api.database.pool"]
    assert events == ["database_unavailable", "database_available"]


@pytest.mark.slow
def test_server_that_stops_answering_is_given_up_after_seconds(
    relay: Relay, wait_until: Callable[..., Any]
) -> None:
    with Database(relay.url, size=1, wait_seconds=10) as database:
        wait_until(lambda: works(database))
        relay.muted = True
        with pytest.raises(OutcomeUnknownError, match="no reply"):
            run(database, "SELECT 1")
        relay.muted = False

        assert works(database)
