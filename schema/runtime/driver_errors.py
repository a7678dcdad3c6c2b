"""Translate psycopg's errors, once, into the three that callers tell apart."""

import re

import psycopg

from schema.errors import (
    AccessDeniedError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    LockTimeoutError,
    OutcomeUnknownError,
    StatementEndedError,
    StatementRefusedError,
)
from schema.runtime import logs

TALLY = "orders_tally_"
"""What the names of our trigger functions begin with. They name the schema that they were made for."""


def translated(error: psycopg.Error, *, closed: bool) -> DatabaseError:
    """Return our error for what psycopg raised during a call; `closed` if the connection is closed since."""
    words = logs.first_line(error)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseReadOnlyError(words)
    if closed:
        return OutcomeUnknownError(words)
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return LockTimeoutError(words)
    if isinstance(error, psycopg.errors.DiskFull):
        return DatabaseFullError(words)
    if isinstance(error, psycopg.OperationalError):
        return StatementEndedError(words)
    if isinstance(error, psycopg.errors.UndefinedTable) and TALLY in (error.diag.context or ""):
        words += ": if the schema was renamed, run `orders migrate`"
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and "row-level security" not in words:
        words += ": `orders grants` prints what a role of an API, of workers or of readers needs"
    return StatementRefusedError(
        words,
        sqlstate=error.sqlstate or "",
        constraint=error.diag.constraint_name,
        table=error.diag.table_name,
        column=error.diag.column_name,
    )


_DENIED = re.compile(
    # PostgreSQL's src/backend/libpq/auth.c and utils/init/postinit.c, and PgBouncer's
    r"authentication failed|pg_hba\.conf|(role|database) \".*\" does not exist|not permitted to log in"
    r"|permission denied for database|no such (database|user)"
    # libpq's fe-connect.c and fe-secure-*.c, and psycopg's
    r"|no password supplied|does not support SSL|certificate (verify|file|for)|(invalid|bad) .*value"
)
"""What the answers have in common that will be the same at the next try. A server that speaks another
language than English is waited for all the same: libpq keeps the code of such an answer to itself."""


_USED_UP = re.compile(
    # PostgreSQL's src/backend/storage/lmgr/proc.c and utils/init/*.c, and PgBouncer's
    r"too many (clients|connections)|remaining connection slots|no more connections allowed"
)
"""What the answers of a server have in common that has no connection left, for anybody or for this role."""

_TO_DO = (
    "its connections are used up: end programs, lower ORDERS_API_PROCESSES or ORDERS_HANDLER_CONNECTIONS,"
    " or have it allow more"
)


def unavailable(error: Exception) -> DatabaseUnavailableError:
    """Return our error for what was raised while connecting. libpq has words for it and no code."""
    lines = str(error).strip().splitlines() or ["no connection"]
    if isinstance(error, DatabaseReadOnlyError) or is_read_only(error):
        return DatabaseReadOnlyError(lines[0])
    # With several hosts psycopg lists how each of them failed: any of them may be the one to wait for.
    failures = [line for line in lines if line.startswith("- host: ")] or lines[:1]
    if all(map(_DENIED.search, failures)):
        return AccessDeniedError(lines[0])
    if full := next(filter(_USED_UP.search, failures), None):
        return DatabaseUnavailableError(f"{full.removeprefix('- ')}: {_TO_DO}")
    return DatabaseUnavailableError(lines[0])


def is_read_only(error: Exception) -> bool:
    """Tell whether a connection was refused because the session would be read-only."""
    return "session is read-only" in str(error)
