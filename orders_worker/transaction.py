"""The transaction that a handler may write in: it commits together with the order's completion.

The connections are few and shared by the slots. On each the server ends by itself what a stopped or
vanished worker leaves open, before its lease is over: nothing that it had locked outlives it.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg.rows import tuple_row

from orders_worker.pulse import Pulse
from schema.connection import CONNECT_SECONDS, Connection
from schema.errors import DatabaseUnavailableError

STATEMENT_SECONDS = 600.0
"""How long one statement of a handler may take when the attempt itself has no limit."""

MARK = "orders.transaction"
"""The setting that tells our transaction from one that a handler has begun in its place."""

LEASE_SHARE = 0.8
LENT_LEASES = 3
"""For how many leases all connections may be lent, and others waited for, before somebody should know."""

LOOK_SECONDS = 0.5
"""How often a handler that waits for a connection looks whether its attempt was given up."""


class TransactionError(Exception):
    """A handler used its transaction in a way that would break the promise that comes with it."""


class TransactionOverError(TransactionError):
    """There is nothing left of it that the completion could be committed with."""

    def __init__(self) -> None:
        super().__init__("the transaction was aborted or ended before the handler returned")


class HandlerConnection(Connection):
    """A connection whose transaction the worker ends, not the handler.

    From `begin` to `end`, `commit`, `rollback` and `close` raise `TransactionError`, after it everything
    does; `with connection.transaction():` makes a savepoint as usual, and `with connection:` ends nothing.
    """

    _lent = False
    _ended = False

    def commit(self) -> None:
        """Commit, unless a handler asks for it."""
        self._refuse("commit")
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless a handler asks for it."""
        self._refuse("rollback")
        super().rollback()

    def close(self) -> None:
        """Close, unless a handler asks for it."""
        self._refuse("close")
        super().close()

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for a reply, as every call here does, unless the attempt is over."""
        if self._ended:
            raise TransactionError("a handler must not use its transaction when its attempt is over")
        return super().wait(gen, interval, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the transaction open: the worker ends it with the attempt."""

    def begin(self, *, idle_seconds: float) -> None:
        """Open the transaction, which the server ends after `idle_seconds` without a statement."""
        self._ended = False
        # What the handler has the server plan may be of tables that somebody changes, or of its own.
        self.prepare_threshold = None
        milliseconds = {
            "statement": round(self.reply_seconds * 1000),
            "idle": round(idle_seconds * 1000),
            "check": round(idle_seconds * 500),
            "mark": MARK,
        }
        reply_seconds = self.reply_seconds
        # A pooler whose sessions are all in use lets it wait.
        self.reply_seconds = min(reply_seconds, CONNECT_SECONDS)
        self.execute(_BEGIN.format(**milliseconds))
        self.reply_seconds = reply_seconds
        self._lent = True

    def reclaim(self) -> None:
        """Take the connection from its handler: what follows is ours, and planned once."""
        # A handler may well have asked for rows of another kind.
        self.row_factory = tuple_row
        self.cursor_factory = psycopg.Cursor
        self.prepare_threshold = 0 if self.direct else None

    def intact(self) -> bool:
        """Tell whether the transaction that `begin` opened is still the open one."""
        return self.execute(_SHOW_MARK, (MARK,)).fetchone() == ("set",)

    def settle(self) -> None:
        """Commit what the handler wrote, as only the worker may."""
        super().commit()

    def end(self) -> None:
        """Roll back what is still open and forget all that the handler set, for the next one to begin."""
        self._lent = False
        self.rollback()
        self.reclaim()
        self.autocommit = True
        if self.direct:
            self._forget()
        self._ended = True

    def _forget(self) -> None:
        """Do what DISCARD ALL does, but keep the plans, which cost more than all the rest.

        A statement that the handler prepared by name would be in the next one's way: then it is closed.
        """
        forgotten = self.execute(_FORGET.format(settings=self.settings), prepare=False)
        while forgotten.nextset():
            pass
        if forgotten.fetchone() == (True,):
            super().close()

    def sever(self) -> None:
        """Cut the connection off under whoever uses it, from any thread; the server rolls back."""
        # Not close(): libpq must not be freed while another thread is inside it.
        try:
            with socket.socket(fileno=os.dup(self.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass  # already closed

    def _refuse(self, call: str) -> None:
        if self._lent:
            raise TransactionError(
                f"a handler must not {call} its transaction: return to have it committed with the order's"
                " completion, raise to have it rolled back"
            )


# SET LOCAL, because that works behind a pooler too. The mark is gone when a handler sends COMMIT as text.
_BEGIN = """
BEGIN;
SET LOCAL jit = off;
SET LOCAL statement_timeout = {statement};
SET LOCAL idle_in_transaction_session_timeout = {idle};
SET LOCAL client_connection_check_interval = {check};
SET LOCAL {mark} = 'set'
"""

_SHOW_MARK = "SELECT current_setting(%s, true)"

# https://www.postgresql.org/docs/current/sql-discard.html names what DISCARD ALL stands for.
_FORGET = """
CLOSE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
UNLISTEN *;
SELECT pg_advisory_unlock_all();
DISCARD TEMP;
DISCARD SEQUENCES;
{settings};
SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql)
"""


class HandlerConnections:
    """Lends the few connections that handlers write through; opens none before one is asked for.

    `pulse` beats with each loan, while somebody waits.
    """

    def __init__(self, url: str, *, size: int, lease_seconds: float, timeout_seconds: float | None) -> None:
        self._url = url
        self._idle_seconds = lease_seconds * LEASE_SHARE
        self._wait_seconds = timeout_seconds or STATEMENT_SECONDS
        self._places = threading.Semaphore(size)
        self._idle: deque[HandlerConnection] = deque(maxlen=size)
        self._waiting = 0
        self._lock = threading.Lock()
        self.pulse = Pulse(patience_seconds=LENT_LEASES * lease_seconds, resting=True)

    def lend(self, *, wanted: Callable[[], bool]) -> HandlerConnection:
        """Return a connection in a new transaction.

        Waits while all are lent or the database is away, as long as it is `wanted`.
        """
        give_up_at = time.monotonic() + self._wait_seconds
        with self._awaited():
            while wanted() and time.monotonic() < give_up_at:
                if self._places.acquire(timeout=LOOK_SECONDS):
                    try:
                        connection = self._begun()
                    except DatabaseUnavailableError as error:
                        self.pulse.miss(error)
                        self._places.release()
                        time.sleep(LOOK_SECONDS)
                    except BaseException:
                        self._places.release()
                        raise
                    else:
                        self.pulse.beat()
                        return connection
        raise TransactionError("no connection for the handler's transaction could be had in time")

    def take_back(self, connection: HandlerConnection) -> None:
        """Roll back whatever is still open and keep the connection for the next handler."""
        try:
            connection.end()
            self._idle.append(connection)
        except psycopg.Error:
            connection.close()
        finally:
            self._places.release()

    def write_off(self, connection: HandlerConnection) -> None:
        """Cut off a connection that its handler may go on using for ever; another may be lent for it."""
        connection.sever()
        self._places.release()

    @contextmanager
    def _awaited(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            self.pulse.expect(when=self._waiting > 0)

    def _begun(self) -> HandlerConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            try:
                connection.begin(idle_seconds=self._idle_seconds)
            except psycopg.OperationalError:
                connection.close()  # it broke while nobody used it
            else:
                return connection
        connection = HandlerConnection.open(
            self._url, name="orders-handler", reply_seconds=self._wait_seconds
        )
        try:
            connection.begin(idle_seconds=self._idle_seconds)
        except psycopg.OperationalError as error:
            connection.close()
            raise DatabaseUnavailableError(str(error)) from error
        return connection


class Loan:
    """One attempt's connection: lent on first use, and returned or cut off once, from any thread."""

    __slots__ = ("_connection", "_connections", "_lending", "_lock", "_over")

    def __init__(self, connections: HandlerConnections) -> None:
        self._connections = connections
        self._lending = threading.Lock()
        self._lock = threading.Lock()
        self._connection: HandlerConnection | None = None
        self._over = False

    @property
    def open(self) -> HandlerConnection | None:
        """The connection, if one was asked for and is not returned."""
        return self._connection

    def connection(self) -> HandlerConnection:
        """Return the attempt's connection, waiting for it if it is asked for the first time."""
        with self._lending:
            if self._connection is None:
                self._keep(self._connections.lend(wanted=lambda: not self._over))
            if (connection := self._connection) is None:
                raise TransactionError("a handler must not begin a transaction when its attempt is over")
            return connection

    def give_back(self) -> None:
        """Return the connection at the attempt's end."""
        if (connection := self._ended()) is not None:
            self._connections.take_back(connection)

    def cut_off(self) -> None:
        """Take the connection away from a handler that is still running; the server rolls back."""
        if (connection := self._ended()) is not None:
            self._connections.write_off(connection)

    def _keep(self, connection: HandlerConnection) -> None:
        with self._lock:
            if not self._over:
                self._connection = connection
                return
        self._connections.take_back(connection)

    def _ended(self) -> HandlerConnection | None:
        with self._lock:
            self._over = True
            connection, self._connection = self._connection, None
            return connection
