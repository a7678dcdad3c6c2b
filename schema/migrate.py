"""Bring a database to the newest schema revision."""

from contextlib import suppress

import psycopg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection as Transacting
from sqlalchemy import Engine, create_engine, pool
from sqlalchemy.exc import DBAPIError

from schema import revision
from schema.errors import StartError
from schema.runtime import logs
from schema.runtime.connection import Connection, DriverConnection

LOCK_KEY = 0x6F72_6465_7273
"""The advisory lock that migrations take: the letters of `orders`."""

STATEMENT_SECONDS = 600
"""How long one statement of a migration may take."""

_SESSION = "orders-migrate"


def upgrade(url: str) -> str:
    """Run every migration that `url`'s database has not had yet, all or none; return its revision.

    It is newer than `revision.NEEDED` when a newer release has migrated it and these programs may go on with
    it: then nothing is done. May be called by many processes at once. Raises `StartError` when the database
    is of another encoding, asks for newer programs or refuses a statement.
    """
    remediable = suppress(revision.SchemaOutdatedError, revision.SchemaRenamedError)
    with Connection.open(url, name=_SESSION) as connection, remediable:
        if (found := revision.check(connection)) > revision.NEEDED:
            return found
    try:
        command.upgrade(_configuration(url), "head")
    except (DBAPIError, CommandError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        raise StartError(f"the database refuses the migration: {logs.first_line(cause)}") from error
    return revision.NEEDED


def _configuration(url: str) -> Config:
    configuration = Config(attributes={"url": url})
    configuration.set_main_option("script_location", "schema:migrations")
    return configuration


def engine(url: str) -> Engine:
    """Return SQLAlchemy's way to the database: through sessions as every program here has them."""

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        connection = DriverConnection.open(url, name=_SESSION, reply_seconds=STATEMENT_SECONDS)
        connection.autocommit = False
        return connection

    return create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)


def is_direct(connection: Transacting) -> bool:
    """Tell whether a connection of `engine` has a session of its own, with no pooler in between."""
    session = connection.connection.dbapi_connection
    return isinstance(session, DriverConnection) and session.direct
