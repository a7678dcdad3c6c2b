"""The few connections that handlers write through, lent to attempts and shared by the slots."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from orders_worker.attempt.transaction import HandlerConnection, TransactionError
from schema.errors import DatabaseUnavailableError
from schema.runtime.watchdog import Watchdog

STATEMENT_SECONDS = 600.0
"""How long one statement of a handler may take when the attempt itself has no limit."""

LEASE_SHARE = 0.8
LENT_LEASES = 3
"""For how many leases all connections may be lent, and others waited for, before somebody should know."""

LOOK_SECONDS = 0.5
"""How often a handler that waits for a connection looks whether its attempt was given up."""


class HandlerConnections:
    """Lends the few connections that handlers write through; opens none before one is asked for.

    `watchdog` beats with each loan, while somebody waits.
    """

    def __init__(self, url: str, *, size: int, lease_seconds: float, timeout_seconds: float | None) -> None:
        self._url = url
        self._idle_seconds = lease_seconds * LEASE_SHARE
        self._wait_seconds = timeout_seconds or STATEMENT_SECONDS
        self._places = threading.Semaphore(size)
        self._idle: deque[HandlerConnection] = deque(maxlen=size)
        self._waiting = 0
        self._lock = threading.Lock()
        self.watchdog = Watchdog(patience_seconds=LENT_LEASES * lease_seconds, resting=True)

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
                        self.watchdog.fail(error)
                        self._places.release()
                        time.sleep(LOOK_SECONDS)
                    except BaseException:
                        self._places.release()
                        raise
                    else:
                        self.watchdog.beat()
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
            self.watchdog.expect(when=self._waiting > 0)

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
