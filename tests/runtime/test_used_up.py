"""A server whose connections are all in use says so in words that name what to do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from orders_api.database.pool import Database
from schema.embedded.server import Server
from schema.errors import DatabaseUnavailableError, StartError
from schema.runtime.connection import Connection
from schema.runtime.driver_errors import unavailable
from tests.servers import temporary_server

TO_DO = "its connections are used up: end programs, lower ORDERS_API_PROCESSES or ORDERS_HANDLER_CONNECTIONS"


@pytest.fixture(scope="module")
def small(store: Path) -> Iterator[Server]:
    """A server with eight connections, three of them for superusers, as `orders` is and `guest` is not."""
    with temporary_server(store=store, fsync="off", max_connections="8") as server:
        with Connection.open(server.ensure_running(), name="test") as connection:
            connection.execute("CREATE ROLE guest LOGIN; CREATE ROLE single LOGIN CONNECTION LIMIT 1")
        yield server


@pytest.fixture
def use_up(small: Server, wait_until: Callable[..., Any]) -> Iterator[Callable[[str], None]]:
    """Take, as a role, as many connections as there are."""
    with ExitStack() as taken:
        with Connection.open(small.url, name="test") as connection:
            others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            wait_until(lambda: connection.one(others) == (1,))

        def take(role: str) -> None:
            try:
                while True:
                    taken.enter_context(Connection.open(as_role(small, role), name="test"))
            except DatabaseUnavailableError:
                return

        yield take


def as_role(server: Server, role: str) -> str:
    return conninfo.make_conninfo(server.url, user=role)


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("orders", "too many clients already"),
        ("guest", "remaining connection slots are reserved"),
        ("single", 'too many connections for role "single"'),
    ],
)
def test_program_that_gets_no_connection_says_what_to_do(
    small: Server, use_up: Callable[[str], None], role: str, words: str
) -> None:
    use_up(role)

    with pytest.raises(DatabaseUnavailableError, match=f"{words}.*: {TO_DO}") as caught:
        Connection.open(as_role(small, role), name="test")

    assert len(str(caught.value).splitlines()) == 1


def test_superuser_still_gets_in_where_programs_of_another_role_have_taken_the_rest(
    small: Server, use_up: Callable[[str], None]
) -> None:
    use_up("guest")

    with Connection.open(small.url, name="test") as connection:
        assert connection.one("SELECT 1") == (1,)


def test_program_that_would_start_the_embedded_server_says_what_to_do(
    small: Server, use_up: Callable[[str], None]
) -> None:
    use_up("orders")

    with pytest.raises(StartError, match=f"PostgreSQL runs, but can't be used: .*{TO_DO}"):
        small.ensure_running()


def test_api_whose_pool_gets_no_connection_logs_why(
    small: Server, use_up: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    use_up("orders")

    with (
        Database(small.url, size=1, wait_seconds=0.5) as database,
        pytest.raises(DatabaseUnavailableError),
        database.connection(),
    ):
        pass

    (record,) = [record for record in caplog.records if record.msg == "database_unavailable"]
    assert TO_DO in str(vars(record))


def test_of_several_hosts_the_one_without_a_connection_left_is_named() -> None:
    error = psycopg.OperationalError(
        "connection refused\n"
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'full', port: 5432: FATAL:  sorry, too many clients already\n"
        "- host: 'down', port: 5432: connection refused"
    )

    words = str(unavailable(error))

    assert TO_DO in words
    assert "too many clients already" in words
    assert "down" not in words
