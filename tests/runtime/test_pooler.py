"""What holds for a connection through a PgBouncer, and for those who share it."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import conninfo

from orders_worker.attempt.pool import HandlerPool
from orders_worker.attempt.transaction import HandlerConnection
from schema import migrate, revision
from schema.errors import DatabaseUnavailableError, OutcomeUnknownError
from schema.queue import wake
from schema.runtime.connection import Connection
from tests.pooler import Pooler, StartPooler

pytestmark = pytest.mark.needs("pgbouncer")

WATCHED = ("statement_timeout", "jit", "synchronous_commit", "idle_in_transaction_session_timeout")


@pytest.fixture
def pooler(start_pooler: StartPooler) -> Pooler:
    """A pooler with one session for everybody: whatever anyone leaves in it, all others find."""
    return start_pooler(default_pool_size=1)


@pytest.fixture
def url(pooler: Pooler, database_url: str) -> str:
    return pooler.through(database_url)


@pytest.fixture
def settings(url: str) -> Callable[[], dict[str, str]]:
    """Read the settings that the next client finds, whoever it is."""

    def read() -> dict[str, str]:
        with psycopg.connect(url, autocommit=True) as client:
            shown = {name: client.execute(f"SHOW {name}").fetchone() for name in WATCHED}
        return {name: row[0] for name, row in shown.items() if row}

    return read


def test_connection_through_a_pooler_is_not_direct(url: str) -> None:
    with Connection.open(url, name="orders-test") as connection:
        assert not connection.direct
        assert connection.execute("SHOW application_name").fetchone() == ("orders-test",)


def test_connection_leaves_no_setting_to_others(url: str, settings: Callable[[], dict[str, str]]) -> None:
    before = settings()

    with Connection.open(url, name="test", reply_seconds=3) as connection:
        connection.execute("SELECT 1")

        assert settings() == before


def test_wake_up_leaves_no_setting_to_others(url: str, settings: Callable[[], dict[str, str]]) -> None:
    before = settings()

    with Connection.open(url, name="test") as connection:
        wake.notify(connection)

    assert settings() == before
    assert before["synchronous_commit"] == "on"


def test_wake_up_does_not_wait_for_the_disk_and_warns_of_nothing(url: str) -> None:
    notices: list[str | None] = []
    with Connection.open(url, name="test") as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        wake.notify(connection)

    assert notices == []


def test_handlers_transaction_has_its_limits_and_leaves_them_to_nobody(
    url: str, settings: Callable[[], dict[str, str]]
) -> None:
    before = settings()
    pool = HandlerPool(url, size=1, lease_seconds=10, timeout_seconds=7)

    connection = pool.check_out(wanted=lambda: True)
    limits = [connection.execute(f"SHOW {name}").fetchone() for name in WATCHED]
    connection.end().close()

    assert limits == [("7s",), ("off",), ("on",), ("8s",)]
    assert settings() == before


def test_end_of_a_handlers_transaction_discards_nothing_of_others(url: str) -> None:
    with (
        HandlerConnection.open(url, name="test") as handlers,
        psycopg.connect(url, autocommit=True) as client,
    ):
        client.execute("SET work_mem = '7MB'")
        handlers.begin(idle_seconds=5)
        handlers.end().close()

        assert client.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_nothing_is_prepared_through_a_pooler(url: str) -> None:
    with Connection.open(url, name="test") as connection:
        for number in range(10):
            connection.execute("SELECT %s", [number])

        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_slow_statement_is_ended_with_the_connection_intact(url: str) -> None:
    with Connection.open(url, name="test", reply_seconds=0.2) as connection:
        with pytest.raises(DatabaseUnavailableError, match="QueryCanceled"):
            connection.execute("SELECT pg_sleep(60)")

        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture
def stopped(pooler: Pooler, url: str) -> Iterator[Connection]:
    """A connection whose pooler is stopped."""
    with Connection.open(url, name="test", reply_seconds=0.2) as connection:
        os.kill(pooler.pid, signal.SIGSTOP)
        try:
            yield connection
        finally:
            os.kill(pooler.pid, signal.SIGCONT)


@pytest.mark.parametrize("size", [1, 5_000_000], ids=["short", "longer than what the wire takes"])
def test_pooler_that_is_stopped_holds_a_call_for_the_reply_time_only(stopped: Connection, size: int) -> None:
    began = time.monotonic()

    with pytest.raises(OutcomeUnknownError, match="no reply from the server"):
        stopped.execute("SELECT length(%s)", ["x" * size])

    assert time.monotonic() - began < 6
    assert stopped.closed


def test_full_pool_is_an_outage_not_a_hang(url: str) -> None:
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1")

        with pytest.raises(DatabaseUnavailableError):
            Connection.open(url, name="test", reply_seconds=0.5)


def test_client_that_the_pooler_lets_wait_no_longer_has_lost_its_connection(
    start_pooler: StartPooler, database_url: str
) -> None:
    url = start_pooler(default_pool_size=1, query_wait_timeout=1).through(database_url)
    with Connection.open(url, name="test") as connection, psycopg.connect(url) as holder:
        holder.execute("SELECT 1")

        with pytest.raises(OutcomeUnknownError, match="query_wait_timeout"):
            connection.execute("SELECT 1")

        assert connection.closed


def test_handler_waits_while_the_pool_is_full(start_pooler: StartPooler, database_url: str) -> None:
    url = start_pooler(default_pool_size=1, query_wait_timeout=1).through(database_url)
    pool = HandlerPool(url, size=1, lease_seconds=10, timeout_seconds=20)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1")
        tries = iter([True, True])

        def wanted() -> bool:
            if next(tries, None) is None:
                holder.rollback()
            return True

        connection = pool.check_out(wanted=wanted)

    assert connection.intact()
    connection.end().close()


def test_database_that_the_pooler_can_t_reach_is_unavailable(
    start_pooler: StartPooler, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nothing = conninfo.make_conninfo(
        host=str(tmp_path_factory.mktemp("nothing")), user="orders", dbname="orders"
    )
    pooler = start_pooler(nothing)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            Connection.open(pooler.url, name="test")


def test_parameter_that_poolers_refuse_is_named(url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="unsupported startup parameter: options"):
        Connection.open(conninfo.make_conninfo(url, options="-c jit=off"), name="test")


def test_pooler_in_session_mode_serves_as_well(start_pooler: StartPooler, database_url: str) -> None:
    url = start_pooler(pool_mode="session").through(database_url)

    with Connection.open(url, name="test") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_migrations_go_through_a_pooler_any_number_of_times(pooler: Pooler, empty_database_url: str) -> None:
    url = pooler.through(empty_database_url)

    for _ in range(3):
        migrate.upgrade(url)

    with Connection.open(url, name="test") as connection:
        revision.check(connection)
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
