"""How programs begin, when the database is not there or goes away."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from psycopg import conninfo

from schema.errors import (
    AccessDeniedError,
    DatabaseUnavailableError,
    OrdersError,
    OutcomeUnknownError,
    SettingError,
    StartError,
    StatementRefusedError,
)
from schema.runtime import startup
from schema.runtime.connection import Connection
from tests.servers import reachable_folder, temporary_server

RULES = """
local postgres guest reject
local all guest,stranger scram-sha-256
local all all peer map=owner
"""
ROLES = """
CREATE ROLE guest LOGIN PASSWORD 'right';
CREATE ROLE idle NOLOGIN;
REVOKE CONNECT ON DATABASE orders FROM PUBLIC
"""


@pytest.fixture(scope="module")
def guarded_url(store: Path) -> Iterator[str]:
    """A server that asks a guest for a password, and then lets it into `template1` only."""
    with reachable_folder() as folder:
        rules = folder / "pg_hba.conf"
        rules.write_text(RULES)
        with temporary_server(store=store, fsync="off", hba_file=str(rules)) as server:
            url = server.ensure_running()
            with Connection.open(url, name="test") as connection:
                connection.execute(ROLES)
            yield url


@pytest.fixture
def answer_tls() -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """Serve what asks for TLS with one letter: N is no, S is yes. Return the server's address."""
    with ExitStack() as stack:

        def serve(letter: bytes) -> dict[str, Any]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=answer, args=[listener, letter], daemon=True).start()
            return {"host": "127.0.0.1", "port": listener.getsockname()[1], "gssencmode": "disable"}

        yield serve


def answer(listener: socket.socket, letter: bytes) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(8)
                client.sendall(letter)


def test_database_that_goes_away_while_a_program_begins_is_waited_for(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tries = []

    def work(connection: Connection) -> str:
        tries.append(connection)
        if len(tries) == 1:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return "done"

    assert startup.first(database_url, name="test", work=work) == "done"

    assert len(tries) == 2
    assert all(connection.closed for connection in tries)
    assert capfd.readouterr().err.startswith("waiting for the database (DATABASE_URL): ")


def test_database_that_refuses_a_program_is_not_waited_for(database_url: str) -> None:
    tries = []

    def work(connection: Connection) -> None:
        tries.append(connection)
        connection.execute("SELECT FROM nothing_of_that_name")

    with pytest.raises(StatementRefusedError, match="UndefinedTable"):
        startup.first(database_url, name="test", work=work)

    assert len(tries) == 1


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"user": "guest", "password": "wrong"}, 'password authentication failed for user "guest"'),
        ({"user": "guest"}, "no password supplied"),
        ({"user": "stranger", "password": "x"}, 'password authentication failed for user "stranger"'),
        ({"user": "guest", "password": "right"}, 'permission denied for database "orders"'),
        ({"user": "guest", "password": "right", "dbname": "shop"}, 'database "shop" does not exist'),
        ({"user": "guest", "dbname": "postgres"}, "pg_hba.conf rejects connection"),
        ({"user": "ghost"}, 'role "ghost" does not exist'),
        ({"user": "idle"}, 'role "idle" is not permitted to log in'),
        ({"sslmode": "yes"}, 'invalid sslmode value: "yes"'),
        ({"port": "http"}, 'invalid integer value "http"'),
        ({"connect_timeout": "soon"}, "bad value for connect_timeout: 'soon'"),
    ],
)
def test_server_that_lets_a_program_not_in_is_not_waited_for(
    guarded_url: str, capfd: pytest.CaptureFixture[str], parameters: dict[str, str], words: str
) -> None:
    with pytest.raises(AccessDeniedError, match=words):
        startup.connect(conninfo.make_conninfo(guarded_url, **parameters), name="test")

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("letter", "words"), [(b"N", "server does not support SSL"), (b"S", 'root certificate file "/none"')]
)
def test_server_without_the_tls_that_is_asked_for_is_not_waited_for(
    answer_tls: Callable[[bytes], dict[str, Any]], letter: bytes, words: str
) -> None:
    url = conninfo.make_conninfo(**answer_tls(letter), sslmode="verify-full", sslrootcert="/none")

    with pytest.raises(AccessDeniedError, match=words):
        startup.connect(url, name="test")


def test_host_that_is_away_is_waited_for_though_another_lets_the_program_not_in(guarded_url: str) -> None:
    host = conninfo.conninfo_to_dict(guarded_url)["host"]
    url = conninfo.make_conninfo(guarded_url, host=f"127.0.0.1,{host}", port="1,5432", user="ghost")

    with pytest.raises(DatabaseUnavailableError, match="ghost") as raised:
        Connection.open(url, name="test")

    assert not isinstance(raised.value, AccessDeniedError)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (SettingError("ORDERS_PORT", "x", "expected a number"), 2, "ORDERS_PORT is 'x': expected a number"),
        (StartError("run `orders migrate`"), 1, "run `orders migrate`"),
        (
            StatementRefusedError("RaiseException: no"),
            1,
            "the database refuses this program: RaiseException: no",
        ),
        (
            DatabaseUnavailableError("QueryCanceled: slow"),
            1,
            "the database is unavailable: QueryCanceled: slow",
        ),
        (StartError("tea\x1b[2J\rmilk"), 1, r"tea\u001b[2J\rmilk"),
        (
            AccessDeniedError("no such role"),
            1,
            "the database (DATABASE_URL) does not let this program in: no such role",
        ),
        (OutcomeUnknownError("server closed"), 1, "the connection to the database was lost: server closed"),
    ],
)
def test_error_that_ends_a_program_is_one_line_and_its_status(
    error: OrdersError, status: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error

    assert startup.exit_status(main) == status

    assert capfd.readouterr().err == f"{line}\n"
