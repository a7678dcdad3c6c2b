import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from schema.errors import DatabaseUnavailableError, OutcomeUnknownError, StatementRefusedError
from schema.runtime.connection import Connection, PooledConnection


@pytest.mark.direct("test_pooler.py has the other kind")
def test_connection_is_named_and_direct_and_commits_by_itself(database_url: str) -> None:
    with Connection.open(database_url, name="orders-test") as connection:
        row = connection.execute("SELECT current_setting('application_name')").fetchone()

        assert row == ("orders-test",)
        assert connection.autocommit
        assert connection.direct


def test_slow_statement_ends_with_the_connection_intact(database_url: str) -> None:
    with Connection.open(database_url, name="test", reply_seconds=0.1) as connection:
        with pytest.raises(DatabaseUnavailableError, match="QueryCanceled"):
            connection.execute("SELECT pg_sleep(60)")

        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_connection_s_one_cursor_takes_nothing_over_from_the_statement_before(database_url: str) -> None:
    with Connection.open(database_url, name="test") as connection:
        first = connection.execute("SELECT '{1}'::int[], %s::text", ("tea",), binary=True)
        assert first.pgresult is not None
        assert first.pgresult.fformat(0) == psycopg.pq.Format.BINARY
        assert first.fetchone() == ([1], "tea")
        with pytest.raises(StatementRefusedError, match="DivisionByZero"):
            connection.execute("SELECT 1 / 0")

        second = connection.execute("SELECT 2")

        assert second is first
        assert second.pgresult is not None
        assert second.pgresult.fformat(0) == psycopg.pq.Format.TEXT
        assert second.fetchone() == (2,)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_server_that_never_answers_is_given_up(silent_port: int) -> None:
    began = time.monotonic()

    with pytest.raises(DatabaseUnavailableError) as raised:
        Connection.open(
            f"postgresql://ada:lovelace@127.0.0.1:{silent_port}/orders?connect_timeout=2", name="test"
        )

    assert time.monotonic() - began < 10
    assert "lovelace" not in str(raised.value)


@pytest.fixture
def stopped(database_url: str, connection: Connection) -> Iterator[Connection]:
    """A connection whose server process is stopped."""
    with Connection.open(database_url, name="stopped", reply_seconds=0.2) as opened:
        pid = opened.info.backend_pid
        status = Path(f"/proc/{pid}/cmdline")
        if not status.exists() or b"stopped" not in _title(connection, status):
            pytest.skip("the server runs somewhere else")
        try:
            os.kill(pid, signal.SIGSTOP)
        except PermissionError:
            pytest.skip("the server is somebody else's")
        try:
            yield opened
        finally:
            os.kill(pid, signal.SIGCONT)


def _title(connection: Connection, cmdline: Path) -> bytes:
    """Return the marker `stopped` if the process is a backend of the test's own database."""
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None
    return b"stopped" if row[0].encode() in cmdline.read_bytes() else b""


def test_server_process_that_is_stopped_holds_a_call_for_the_reply_time_only(stopped: Connection) -> None:
    began = time.monotonic()

    with pytest.raises(OutcomeUnknownError, match=r"no reply from the server within 1\.2 seconds"):
        stopped.execute("SELECT 1")

    assert time.monotonic() - began < 5
    assert stopped.closed


@pytest.mark.parametrize(
    "change", [{"port": "1"}, {"dbname": "no_such_database"}, {"host": "no-such-host.invalid"}]
)
def test_database_that_can_t_be_had_is_one_line_without_the_password(
    database_url: str, change: dict[str, str]
) -> None:
    url = conninfo.make_conninfo(f"{database_url} password=lovelace", **change)

    with pytest.raises(DatabaseUnavailableError) as raised:
        Connection.open(url, name="test")

    assert "\n" not in str(raised.value)
    assert "lovelace" not in str(raised.value)


def test_what_the_connection_string_says_itself_is_kept(database_url: str) -> None:
    url = conninfo.make_conninfo(database_url, keepalives_idle="77", target_session_attrs="any")

    with Connection.open(url, name="test") as connection:
        parameters = connection.info.get_parameters()

    assert parameters["keepalives_idle"] == "77"
    assert parameters.get("target_session_attrs", "any") == "any"


@pytest.mark.direct("its session is its own, with settings")
def test_pooled_connection_opens_like_any_other(database_url: str) -> None:
    with PooledConnection.connect(database_url, name="pooled", reply_seconds=3) as connection:
        found: Callable[..., Any] = connection.execute
        row = found(
            "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        ).fetchone()

        assert row == ("pooled", "3s")
        assert connection.reply_seconds == 3


@pytest.mark.direct("its session is its own, with settings")
def test_no_time_goes_into_compiling_statements(connection: Connection) -> None:
    assert connection.execute("SHOW jit").fetchone() == ("off",)
