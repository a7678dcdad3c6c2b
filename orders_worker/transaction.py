"""The transaction that a handler may write in: it commits together with the order's completion.

The connections are few and shared by the slots. On each the server ends by itself what a stopped or
vanished worker leaves open, before its lease is over: nothing that it had locked outlives it.
"""

import os
import socket
import time
from typing import Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from schema.connection import PooledConnection

STATEMENT_SECONDS = 600.0
"""How long one statement of a handler may take when the attempt itself has no limit."""

LEASE_SHARE = 0.8


class TransactionError(Exception):
    """A handler used its transaction in a way that would break the promise that comes with it."""


class HandlerConnection(PooledConnection):
    """A connection whose transaction the worker ends, not the handler.

    While `lent`, `commit` and `rollback` raise `TransactionError`; `with connection.transaction():` makes
    a savepoint as usual, and `with connection:` ends nothing.
    """

    lent = False

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the transaction open: the worker ends it with the attempt."""

    def begin(self, *, idle_seconds: float) -> None:
        """Open the transaction, which the server ends after `idle_seconds` without a statement."""
        self.execute(_BEGIN.format(idle=round(idle_seconds * 1000), check=round(idle_seconds * 500)))
        self.lent = True

    def intact(self) -> bool:
        """Tell whether the transaction that `begin` opened is still the open one and has not failed."""
        if self.info.transaction_status != TransactionStatus.INTRANS:
            return False
        row = self.execute(_MARK).fetchone()
        return row is not None and row[0] == "open"

    def sever(self) -> None:
        """Cut the connection off under whoever uses it, from any thread; the server rolls back."""
        # Not close(): libpq must not be freed while another thread is inside it.
        try:
            with socket.socket(fileno=os.dup(self.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass  # already closed

    def _refuse(self, call: str) -> None:
        if self.lent:
            raise TransactionError(
                f"a handler must not {call} its transaction: return to have it committed with the order's"
                " completion, raise to have it rolled back"
            )


# SET LOCAL, because that works behind a pooler too. The mark is gone when a handler sends COMMIT as text.
_BEGIN = """
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = {idle};
SET LOCAL client_connection_check_interval = {check};
SET LOCAL orders.transaction = 'open'
"""

_MARK = "SELECT current_setting('orders.transaction', true)"


class HandlerConnections:
    """Lends the few connections that handlers write through; opens none before one is asked for."""

    def __init__(self, url: str, *, size: int, lease_seconds: float, timeout_seconds: float | None) -> None:
        self._idle_seconds = lease_seconds * LEASE_SHARE
        self._wait_seconds = timeout_seconds or STATEMENT_SECONDS
        self._pool = ConnectionPool(
            url,
            connection_class=HandlerConnection,
            kwargs={"name": "orders-handler", "reply_seconds": self._wait_seconds},
            min_size=0,
            max_size=size,
            num_workers=1,
            # A connection that can't be opened is forgotten and asked for anew by whoever waits for one.
            reconnect_timeout=0.5,
            check=ConnectionPool.check_connection,
            open=False,
        )

    def open(self) -> None:
        """Allow lending."""
        self._pool.open()

    def close(self) -> None:
        """Close the connections that are not lent."""
        self._pool.close(timeout=1)

    def lend(self) -> HandlerConnection:
        """Return a connection in a new transaction, waiting for one while all are lent."""
        connection = self._wait_for_one()
        try:
            connection.begin(idle_seconds=self._idle_seconds)
        except BaseException:
            self._pool.putconn(connection)
            raise
        return connection

    def _wait_for_one(self) -> HandlerConnection:
        give_up_at = time.monotonic() + self._wait_seconds
        while True:
            try:
                return self._pool.getconn(timeout=1)
            except PoolTimeout:
                if time.monotonic() >= give_up_at:
                    raise

    def take_back(self, connection: HandlerConnection) -> None:
        """Roll back whatever is still open and keep the connection for the next handler."""
        connection.lent = False
        self._pool.putconn(connection)
