"""Put a dump in the place of a database, which is kept beside it."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from psycopg import sql

from schema.embedded import dump
from schema.embedded.client import SESSION, Client
from schema.errors import DatabaseError, DatabaseUnavailableError, StartError
from schema.runtime import startup
from schema.runtime.connection import Connection

LOCK_KEY = 0x7265_7374_6F72_65
"""The advisory lock that a restore holds: the letters of `restore`."""

REPLY_SECONDS = 600
"""How long the server may take for one statement of a restore."""


def restore(client: Client, source: Path, *, prepare: Callable[[Connection], None]) -> str:
    """Bring the database back to when `source` was dumped; return the name that the old database has now.

    The dump goes into a new database, `prepare` gets a connection to it, and one transaction renames both.
    Owners, grants and settings of the old database stay with that. A crash leaves

    - while the dump is verified: nothing;
    - until the renaming: the database as it was, beside it a `…_restoring`, which the next restore drops;
    - from then on: the restored database in its place, and the old one under its new name.

    Raises `StartError` when the dump is damaged or can't be restored, while programs are connected to the old
    database, and while another restore is under way.
    """
    client = client.suited()
    dump.verify(client, source)
    with startup.connect(client.url, name=SESSION) as present:
        name = present.info.dbname
    # A database can't be renamed by somebody who is connected to it.
    beside = client.at("template1" if name == "postgres" else "postgres")
    with _open(beside) as admin:
        if admin.one("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]) != (True,):
            raise StartError("another restore is under way")
        _refuse_programs(admin, name)
        fresh = f"{name}_restoring"
        _do(admin, "DROP DATABASE IF EXISTS {} WITH (FORCE)", fresh)
        _do(admin, "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'", fresh)
        try:
            new = client.at(fresh)
            options = ["--no-password", "--exit-on-error", "--no-owner", "--no-privileges"]
            new.run("pg_restore", new.address, *options, source)
            with _open(new) as connection:
                connection.execute("ANALYZE")
                prepare(connection)
            return _swap(admin, name, fresh=fresh)
        except BaseException:
            with suppress(DatabaseError):
                _do(admin, "DROP DATABASE IF EXISTS {} WITH (FORCE)", fresh)
            raise


def _swap(admin: Connection, name: str, *, fresh: str) -> str:
    """Rename both databases at once. The server waits some seconds for programs that are about to leave."""
    aside = f"{name}_before_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    try:
        with admin.transaction():
            _do(admin, "ALTER DATABASE {} RENAME TO {}", name, aside)
            _do(admin, "ALTER DATABASE {} RENAME TO {}", fresh, name)
    except DatabaseUnavailableError:
        _refuse_programs(admin, name)
        raise
    return aside


def _open(client: Client) -> Connection:
    return Connection.open(client.url, name=SESSION, reply_seconds=REPLY_SECONDS)


def _do(admin: Connection, statement: str, *databases: str) -> None:
    admin.execute(sql.SQL(statement).format(*map(sql.Identifier, databases)))


# One of our own sessions may still be on its way out. The server ends those of its own by itself; not every
# role may see what kind another's session is.
_PROGRAMS = f"""
SELECT application_name, count(*)
FROM pg_stat_activity
WHERE datname = %s
  AND application_name <> '{SESSION}'
  AND COALESCE(backend_type, 'client backend') = 'client backend'
GROUP BY application_name
ORDER BY application_name
"""


def _refuse_programs(admin: Connection, name: str) -> None:
    if programs := admin.execute(_PROGRAMS, [name]).fetchall():
        named = ", ".join(f"{program or 'unnamed'} ({count})" for program, count in programs)
        raise StartError(f"programs are connected to the database, stop them first: {named}")
