"""The few connections that handlers write through, shared by all slots."""

import threading
import time
from collections.abc import Callable
from queue import Empty, LifoQueue

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
        # A place for each connection, with the idle one that it has; on top the one given back last.
        self._places: LifoQueue[HandlerConnection | None] = LifoQueue()
        for _ in range(size):
            self._places.put(None)
        self._waiting = 0
        self._lock = threading.Lock()
        self.watchdog = Watchdog(patience_seconds=EXHAUSTED_LEASES * lease_seconds, resting=True)

    def check_out(self, *, wanted: Callable[[], bool]) -> HandlerConnection:
        """Return a connection in a new transaction.

        Waits while all are in use or the database is away. Raises `TransactionError` once it is not `wanted`
        any more, or after the attempt's own time limit (ten minutes without one).
        """
        give_up_at = time.monotonic() + self._wait_seconds
        self._count_waiting(1)
        try:
            while wanted() and time.monotonic() < give_up_at:
                try:
                    connection = self._begun(self._places.get(timeout=STEP_SECONDS))
                except Empty:
                    continue
                except DatabaseUnavailableError as error:
                    self.watchdog.fail(error)
                    time.sleep(STEP_SECONDS)
                else:
                    self.watchdog.beat()
                    return connection
        finally:
            self._count_waiting(-1)
        raise TransactionError("no connection for the handler's transaction could be had in time")

    def check_in(self, connection: HandlerConnection) -> None:
        """Roll back what is still open, and keep the connection for the next handler."""
        place = None
        try:
            place = connection.end()
        except (psycopg.Error, TransactionError):
            connection.close()
        finally:
            self._places.put(place)

    def write_off(self, connection: HandlerConnection) -> None:
        """Cut off a connection that a handler may never stop using, and allow another one in its place."""
        connection.sever()
        self._places.put(None)

    def probe(self) -> Connection:
        """Open a connection outside the pool, to find out what became of one of them."""
        return Connection.open(self._url, name="orders-handler")

    def _count_waiting(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            self.watchdog.expect(when=self._waiting > 0)

    def _begun(self, idle: HandlerConnection | None) -> HandlerConnection:
        """Begin a transaction on the `idle` connection of a place, or on a new one if it is broken."""
        try:
            if idle is not None:
                try:
                    idle.begin(idle_seconds=self._idle_seconds)
                except psycopg.OperationalError:
                    idle.close()
                else:
                    return idle
            return self._opened()
        except BaseException:
            self._places.put(None)
            raise

    def _opened(self) -> HandlerConnection:
        connection = HandlerConnection.open(
            self._url, name="orders-handler", reply_seconds=self._wait_seconds
        )
        try:
            connection.begin(idle_seconds=self._idle_seconds)
        except psycopg.OperationalError as error:
            connection.close()
            raise DatabaseUnavailableError(str(error)) from error
        return connection
