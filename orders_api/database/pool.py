"""The API's pool of connections: a request gets one at once or fails, and broken ones are replaced."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from schema.errors import (
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    StatementRefusedError,
)
from schema.runtime import logs
from schema.runtime.connection import Connection, PooledConnection

WAIT_SECONDS = 0.2
REPLY_SECONDS = 5.0

_log = logs.Log(__name__)


class Database:
    """A pool of connections that replaces lost ones by itself and makes no caller wait for long.

    `size` is the number of threads that use it. A caller waits at most `wait_seconds` for a connection,
    which is enough to open a new one, and at most `REPLY_SECONDS` for the reply to a statement. `suspect` is
    set when a statement met a full disk or was forbidden; who finds that orders can be stored resets it.
    """

    def __init__(self, url: str, *, size: int, wait_seconds: float = WAIT_SECONDS) -> None:
        # It warns of every failed attempt to connect. `_note` logs each change once.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._wait_seconds = wait_seconds
        self._away = False
        self._failure: DatabaseUnavailableError | None = None
        self.suspect = False
        self._pool = ConnectionPool(
            url,
            connection_class=PooledConnection,
            kwargs={"name": "orders-api", "reply_seconds": REPLY_SECONDS, "failed": self._failed},
            min_size=size,
            open=False,
            # After this time the pool gives up on a connection that it can't open, and the next request asks
            # for a new one. Otherwise its pauses double up to minutes, long after the server is back.
            reconnect_timeout=0.5,
        )

    def __enter__(self) -> Self:
        """Start to connect; return at once."""
        self._pool.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection in autocommit mode. Read each answer before you run the next statement.

        Raises `DatabaseUnavailableError` when there is none now. Errors of statements pass through.
        """
        connection = self._take()
        try:
            yield connection
        except StatementRefusedError as error:
            if error.is_forbidden:
                self.suspect = True
            raise
        except DatabaseReadOnlyError as error:
            _log.warning("database_is_read_only", error=error)
            raise
        except (DatabaseUnavailableError, OutcomeUnknownError) as error:
            if isinstance(error, DatabaseFullError):
                self.suspect = True
            _log.warning("statement_failed", error=error)
            raise
        finally:
            self._pool.putconn(connection)

    def _take(self) -> PooledConnection:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                connection = self._pool.getconn(deadline - time.monotonic())
            except PoolTimeout as error:
                self._note(away=True)
                if isinstance(self._failure, DatabaseReadOnlyError):
                    raise DatabaseReadOnlyError("there is no server that takes writes") from error
                raise DatabaseUnavailableError("no connection is free") from error
            if _is_alive(connection):
                self._note(away=False)
                return connection
            connection.close()
            self._pool.putconn(connection)

    def _failed(self, error: DatabaseUnavailableError) -> None:
        """Remember why there was no connection, for the log."""
        self._failure = error

    def _note(self, *, away: bool) -> None:
        """Log a change, not every request that meets it."""
        if not away:
            self._failure = None
        if away != self._away:
            self._away = away
            if away:
                _log.warning("database_unavailable", error=self._failure)
            else:
                _log.info("database_available")


def _is_alive(connection: Connection) -> bool:
    """Tell whether the server has closed the connection, by what it has sent: no round trip, no wait.

    The first call reads a notice or the server's last message, the second finds the end of file behind it.
    """
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return True
