"""What the defaults of a database, which somebody may set to anything, change of a session here: nothing."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from orders_worker.attempt.transaction import HandlerConnection
from schema.errors import DatabaseReadOnlyError, DatabaseUnavailableError
from schema.runtime.connection import Connection, PooledConnection
from tests.conftest import Alter
from tests.pooler import StartPooler

OTHERS: dict[str, tuple[str, str]] = {
    "synchronous_commit": ("off", "on"),
    "DateStyle": ("German, DMY", "ISO, DMY"),
    "IntervalStyle": ("sql_standard", "postgres"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_read_only": ("on", "off"),
    "row_security": ("off", "on"),
    "lock_timeout": ("7ms", "0"),
    "idle_session_timeout": ("5s", "0"),
    "extra_float_digits": ("-15", "1"),
    "array_nulls": ("off", "on"),
}
"""Settings by name: what a database has, and what a session of ours has."""


def shown(connection: psycopg.Connection[Any], name: str) -> object:
    row = connection.execute(f"SHOW {name}").fetchone()
    return row and row[0]


@pytest.mark.direct("its session is its own, with settings")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", [Connection, PooledConnection])
def test_session_has_what_promises_and_parsers_rely_on(
    database_url: str, alter: Alter, kind: type[Connection], name: str
) -> None:
    others, ours = OTHERS[name]
    alter(**{name: others})

    with kind.open(database_url, name="test") as opened:
        assert shown(opened, name) == ours
        assert opened.one("SELECT clock_timestamp() > '2020-01-01'") == (True,)


@pytest.mark.direct("its session is its own, with settings")
def test_session_without_a_time_limit_for_its_transactions(database_url: str, alter: Alter) -> None:
    with Connection.open(database_url, name="test") as opened:
        if opened.info.server_version < 170_000:
            pytest.skip("the setting is new in PostgreSQL 17")
    alter(transaction_timeout="7ms")

    with Connection.open(database_url, name="test") as opened, opened.transaction():
        opened.execute("SELECT pg_sleep(0.1)")

        assert opened.one("SELECT 1") == (1,)


@pytest.mark.direct("its session is its own, with settings")
@pytest.mark.parametrize("value", ["local", "remote_write", "remote_apply"])
def test_commit_is_as_durable_as_somebody_wants_it(database_url: str, alter: Alter, value: str) -> None:
    alter(synchronous_commit=value)

    with Connection.open(database_url, name="test") as opened:
        assert shown(opened, "synchronous_commit") == value


@pytest.mark.direct("its session is its own, with settings")
def test_role_that_reads_only_by_default_writes_all_the_same(database_url: str, alter: Alter) -> None:
    alter(default_transaction_read_only="on")

    connection = HandlerConnection.open(database_url, name="test")
    for _ in range(3):
        connection.begin(idle_seconds=5)
        assert connection.execute("UPDATE queue SET paused_at = NULL").rowcount == 1
        connection = connection.end()
    connection.close()


@pytest.mark.direct("its session is its own, with settings")
def test_handlers_session_keeps_what_its_user_has_set(database_url: str, alter: Alter) -> None:
    kept = {
        "search_path": "pg_catalog",
        "DateStyle": "German, DMY",
        "IntervalStyle": "sql_standard",
        "default_transaction_isolation": "serializable",
        "row_security": "off",
        "lock_timeout": "7s",
    }
    alter(**kept)

    connection = HandlerConnection.open(database_url, name="test")
    for _ in range(2):
        connection.begin(idle_seconds=5)
        assert {name: shown(connection, name) for name in kept} == kept
        assert shown(connection, "transaction_isolation") == "serializable"
        connection = connection.end()
    connection.close()


@pytest.mark.parametrize("value", ["off", "local"])
def test_handlers_transaction_commits_durably_whatever_was_set_in_it(
    database_url: str, connection: Connection, alter: Alter, durabilities: Callable[[], list[str]], value: str
) -> None:
    # A deferred trigger sees what the commit sees.
    connection.execute("""
        CREATE TABLE shop ();
        CREATE CONSTRAINT TRIGGER see AFTER INSERT ON shop DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION see_durability();
    """)
    alter(synchronous_commit="off")
    handlers = HandlerConnection.open(database_url, name="test")

    handlers.begin(idle_seconds=5)
    handlers.execute(f"SET LOCAL synchronous_commit = {value}")
    handlers.execute("INSERT INTO shop DEFAULT VALUES")
    handlers.commit_for_the_worker()
    handlers.end().close()

    assert durabilities() == ["on" if value == "off" else value]


@pytest.mark.needs("pgbouncer")
def test_default_that_breaks_a_promise_is_named_once_behind_a_pooler(
    start_pooler: StartPooler, database_url: str, alter: Alter, caplog: pytest.LogCaptureFixture
) -> None:
    alter(synchronous_commit="off", default_transaction_isolation="repeatable read")
    url = start_pooler().through(database_url)

    for _ in range(2):
        with Connection.open(url, name="test") as connection:
            assert shown(connection, "synchronous_commit") == "off"

    (record,) = caplog.records
    assert record.getMessage().startswith("session_settings_behind_a_pooler")
    assert record.levelname == "WARNING"
    assert record.__dict__["fields"]["settings"] == (
        "default_transaction_isolation=repeatable read synchronous_commit=off"
    )


@pytest.mark.needs("pgbouncer")
def test_nothing_is_said_of_a_pooler_whose_sessions_are_as_they_should_be(
    start_pooler: StartPooler, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection.open(start_pooler().through(database_url), name="test"):
        assert caplog.records == []


@pytest.mark.needs("pgbouncer")
def test_dates_that_can_t_be_read_behind_a_pooler_keep_a_program_waiting(
    start_pooler: StartPooler, database_url: str, alter: Alter
) -> None:
    alter(DateStyle="German, DMY")

    with pytest.raises(DatabaseUnavailableError, match=r"DateStyle is German.*ALTER ROLE"):
        Connection.open(start_pooler().through(database_url), name="test")


@pytest.mark.needs("pgbouncer")
def test_database_that_reads_only_behind_a_pooler_says_so(
    start_pooler: StartPooler, database_url: str, alter: Alter
) -> None:
    alter(default_transaction_read_only="on")

    with pytest.raises(DatabaseReadOnlyError, match="session is read-only"):
        Connection.open(start_pooler().through(database_url), name="test")
