"""Bring a database to the newest schema revision."""

from typing import Any

from alembic import command
from alembic.config import Config
from psycopg import conninfo
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from schema.errors import StartError
from schema.runtime import logs

LOCK_KEY = 0x6F72_6465_7273
"""The advisory lock that migrations take: the letters of `orders`."""


def upgrade(url: str) -> None:
    """Run every migration that `url`'s database has not had yet, all or none.

    May be called by many processes at once. Raises `StartError` when the database refuses a statement.
    """
    try:
        command.upgrade(_configuration(url), "head")
    except DBAPIError as error:
        raise StartError(
            f"the database refuses the migration: {logs.first_line(error.orig or error)}"
        ) from error


def _configuration(url: str) -> Config:
    configuration = Config(attributes={"url": url})
    configuration.set_main_option("script_location", "schema:migrations")
    return configuration


def engine_url(url: str) -> URL:
    """Turn any libpq connection string into SQLAlchemy's form."""
    given: dict[str, Any] = conninfo.conninfo_to_dict(url)
    return URL.create("postgresql+psycopg", query={key: str(value) for key, value in given.items()})
