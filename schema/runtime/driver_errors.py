"""Translate psycopg's errors, once, into the three that callers tell apart."""

import psycopg

from schema.errors import (
    DatabaseError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    LockTimeoutError,
    OutcomeUnknownError,
    StatementRefusedError,
)
from schema.runtime import logs


def translated(error: psycopg.Error, *, closed: bool) -> DatabaseError:
    """Return our error for what psycopg raised during a call; `closed` if the connection is closed since."""
    words = logs.first_line(error)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseReadOnlyError(words)
    if closed:
        return OutcomeUnknownError(words)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return LockTimeoutError(words)
    if isinstance(error, psycopg.OperationalError):
        return DatabaseUnavailableError(words)
    return StatementRefusedError(
        words,
        sqlstate=error.sqlstate or "",
        constraint=error.diag.constraint_name,
        table=error.diag.table_name,
        column=error.diag.column_name,
    )


def unavailable(error: Exception) -> DatabaseUnavailableError:
    """Return our error for what was raised while connecting. libpq has words for it and no code."""
    words = (str(error).strip().splitlines() or ["no connection"])[0]
    if isinstance(error, DatabaseReadOnlyError) or is_read_only(error):
        return DatabaseReadOnlyError(words)
    return DatabaseUnavailableError(words)


def is_read_only(error: Exception) -> bool:
    """Tell whether a connection was refused because the session would be read-only."""
    return "session is read-only" in str(error)
