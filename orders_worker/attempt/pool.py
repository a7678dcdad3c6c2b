"""The few connections that handlers write through, shared by all slots."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from orders_worker.attempt.transaction import HandlerConnection, TransactionError
from schema.errors import DatabaseUnavailableError
from schema.runtime.connection import Connection
from schema.runtime.watchdog import Watchdog

STATEMENT_SECONDS = 600.0
"""How long one statement of a handler may take when the attempt itself has no limit."""

LEASE_SHARE = 0.8
"""The share of a lease after which the server ends a transaction that runs no statement."""

EXHAUSTED_LEASES = 3
"""For how many leases handlers may wait while every connection is in use before `watchdog` is overdue."""

STEP_SECONDS = 0.5
"""How often a handler that waits for a connection checks whether its attempt was given up."""


class HandlerPool:
    """At most `size` connections; opens none before a handler asks for one.

    While a handler waits, `watchdog` expects a beat; each checkout is one.
    """

    def __init__(self, url: str, *, size: int, lease_seconds: float, timeout_seconds: float | None) -> None:
        self._url = url
        self._idle_seconds = lease_seconds * LEASE_SHARE
        self._wait_seconds = timeout_seconds or STATEMENT_SECONDS
        self._places = threading.Semaphore(size)
        self._idle: deque[HandlerConnection] = deque(maxlen=size)
        self._waiting = 0
        self._lock = threading.Lock()
        self.watchdog = Watchdog(patience_seconds=EXHAUSTED_LEASES * lease_seconds, resting=True)

    def check_out(self, *, wanted: Callable[[], bool]) -> HandlerConnection:
        """Return a connection in a new transaction.

        Waits while all are in use or the database is away. Raises `TransactionError` once it is not `wanted`
        any more, or after the attempt's own time limit (ten minutes without one).
        """
        give_up_at = time.monotonic() + self._wait_seconds
        with self._expected():
            while wanted() and time.monotonic() < give_up_at:
                if self._places.acquire(timeout=STEP_SECONDS):
                    try:
                        connection = self._begun()
                    except DatabaseUnavailableError as error:
                        self.watchdog.fail(error)
                        self._places.release()
                        time.sleep(STEP_SECONDS)
                    except BaseException:
                        self._places.release()
                        raise
                    else:
                        self.watchdog.beat()
                        return connection
        raise TransactionError("no connection for the handler's transaction could be had in time")

    def probe(self) -> Connection:
        """Open a connection outside the pool, to find out what became of one of them."""
        return Connection.open(self._url, name="orders-handler")

    def check_in(self, connection: HandlerConnection) -> None:
        """Roll back what is still open, and keep the connection for the next handler."""
        try:
            connection.end()
            self._idle.append(connection)
        except psycopg.Error:
            connection.close()
        finally:
            self._places.release()

    def write_off(self, connection: HandlerConnection) -> None:
        """Cut off a connection that a handler may never stop using, and allow another one in its place."""
        connection.sever()
        self._places.release()

    @contextmanager
    def _expected(self) -> Iterator[None]:
        """Keep `watchdog` expecting a beat while any caller waits."""
        self._count_waiting(1)
        try:
            yield
        finally:
            self._count_waiting(-1)

    def _count_waiting(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            self.watchdog.expect(when=self._waiting > 0)

    def _begun(self) -> HandlerConnection:
        """Return an idle connection, or a new one, with its transaction open."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            try:
                connection.begin(idle_seconds=self._idle_seconds)
            except psycopg.OperationalError:
                connection.close()  # it broke while it was idle
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


class Checkout:
    """One attempt's connection: taken on first use, checked in or cut off once, from any thread."""

    __slots__ = ("_checking_out", "_connection", "_lock", "_over", "_pool")

    def __init__(self, pool: HandlerPool) -> None:
        self._pool = pool
        self._checking_out = threading.Lock()
        self._lock = threading.Lock()
        self._connection: HandlerConnection | None = None
        self._over = False

    @property
    def current(self) -> HandlerConnection | None:
        """The connection, None before the first use and after the end."""
        return self._connection

    def connection(self) -> HandlerConnection:
        """Return the attempt's connection. The first call may wait for it."""
        with self._checking_out:
            if self._connection is None:
                self._keep(self._pool.check_out(wanted=lambda: not self._over))
            if (connection := self._connection) is None:
                raise TransactionError("a handler must not begin a transaction when its attempt is over")
            return connection

    def check_in(self) -> None:
        """Return the connection at the attempt's end."""
        if (connection := self._ended()) is not None:
            self._pool.check_in(connection)

    def cut_off(self) -> None:
        """Take the connection away from a handler that still runs. The server rolls back."""
        if (connection := self._ended()) is not None:
            self._pool.write_off(connection)

    def _keep(self, connection: HandlerConnection) -> None:
        with self._lock:
            if not self._over:
                self._connection = connection
                return
        self._pool.check_in(connection)

    def _ended(self) -> HandlerConnection | None:
        with self._lock:
            self._over = True
            connection, self._connection = self._connection, None
            return connection
