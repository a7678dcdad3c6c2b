"""The connection of one attempt, which its handler may write through."""

import threading

from orders_worker.attempt.pool import HandlerPool
from orders_worker.attempt.transaction import HandlerConnection, TransactionError


class Checkout:
    """Taken from the pool on first use, checked in or cut off once, from any thread.

    `current` is the connection, None before the first use and after the end.
    """

    __slots__ = ("_checking_out", "_lock", "_over", "_pool", "current")

    def __init__(self, pool: HandlerPool) -> None:
        self.current: HandlerConnection | None = None
        self._pool = pool
        self._checking_out = threading.Lock()
        self._lock = threading.Lock()
        self._over = False

    def connection(self) -> HandlerConnection:
        """Return the attempt's connection. The first call may wait for it."""
        with self._checking_out:
            if self.current is None:
                self._keep(self._pool.check_out(wanted=lambda: not self._over))
            if (connection := self.current) is None:
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
                self.current = connection
                return
        self._pool.check_in(connection)

    def _ended(self) -> HandlerConnection | None:
        with self._lock:
            self._over = True
            connection, self.current = self.current, None
            return connection
