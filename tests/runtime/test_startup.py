"""How programs begin, when the database is not there or goes away."""

import pytest

from schema.errors import (
    DatabaseUnavailableError,
    OrdersError,
    OutcomeUnknownError,
    SettingError,
    StartError,
    StatementRefusedError,
)
from schema.runtime import startup
from schema.runtime.connection import Connection


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
