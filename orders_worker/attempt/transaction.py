"""The transaction that a handler may write in: it commits together with the order's completion.

The server ends by itself what a stopped or vanished worker leaves open, before its lease is over: nothing
that it had locked outlives it.
"""

import os
import socket
from typing import Any, Self

import psycopg
from psycopg import pq
from psycopg._preparing import PrepareManager
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from schema.errors import OutcomeUnknownError
from schema.runtime import inherited
from schema.runtime.connection import COMMIT_DURABLY, CONNECT_SECONDS, DriverConnection

MARK = "orders.transaction"
"""The setting that tells our transaction from one that a handler has begun in its place."""


_CLOSED = pq.PGconn.connect(b"no_such_option=")
"""A session that never was, for connections whose session has gone over to another one."""


class TransactionError(Exception):
    """A handler used its transaction in a way that would break the promise that comes with it."""


class TransactionOverError(TransactionError):
    """There is nothing left of it that the completion could be committed with."""

    def __init__(self) -> None:
        super().__init__("the transaction was aborted or ended before the handler returned")


class TransactionIdleError(TransactionError):
    """The server has ended a transaction in which no statement ran for too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"no statement ran in the transaction for {seconds:g} seconds, and the server ended it: do what"
            " takes long before it begins"
        )


class HandlerConnection(DriverConnection):
    """A connection whose transaction the worker ends, not the handler.

    From `begin` to `end`, `commit`, `rollback` and `close` raise `TransactionError`. `with
    connection.transaction():` makes a savepoint as usual, and `with connection:` ends nothing.
    """

    relied_on = ""  # its user's statements rely on its user's settings

    _checked_out = False
    _ended = False
    _idle_seconds = 0.0

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
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.errors.IdleInTransactionSessionTimeout as error:
            raise TransactionIdleError(self._idle_seconds) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the transaction open: the worker ends it with the attempt."""

    def begin(self, *, idle_seconds: float) -> None:
        """Open the transaction, which the server ends after `idle_seconds` without a statement."""
        self._idle_seconds = idle_seconds
        # What the handler has the server plan may be of tables that somebody changes, or of its own.
        self.prepare_threshold = None
        reply_seconds = self.reply_seconds
        # A pooler whose sessions are all in use lets it wait.
        self.reply_seconds = min(reply_seconds, CONNECT_SECONDS)
        self.execute(
            _BEGIN.format(statement=reply_seconds, idle=idle_seconds, check=idle_seconds / 2, mark=MARK)
        )
        self.reply_seconds = reply_seconds
        self._checked_out = True

    def reclaim(self) -> None:
        """Take the connection from its handler: what follows is ours, and planned once."""
        # A handler may well have asked for rows of another kind.
        self.row_factory = tuple_row
        self.cursor_factory = psycopg.Cursor
        self.prepare_threshold = 0 if self.direct else None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open in which a statement may run."""
        return self.info.transaction_status == TransactionStatus.INTRANS

    def intact(self) -> bool:
        """Tell whether the transaction that `begin` opened is still the open one."""
        return self.execute(_SHOW_MARK, (MARK,)).fetchone() == ("set",)

    def commit_for_the_worker(self) -> None:
        """Commit what the handler wrote, as only the worker may, and durably whatever the handler has set.

        Raises `OutcomeUnknownError` when the connection was lost meanwhile; an error of the handler's own
        making, such as a deferred constraint, is psycopg's.
        """
        try:
            self.execute(_COMMIT, prepare=False)
        except psycopg.OperationalError as error:
            if self.closed:
                raise OutcomeUnknownError(str(error)) from error
            raise

    def end(self) -> Self:
        """Roll back what is open and forget all that the handler set; return the session for the next one.

        Whoever kept this object can do nothing more with it.
        """
        self._checked_out = False
        self.rollback()
        self.reclaim()
        self.autocommit = True
        if self.direct:
            self._forget()
        successor = type(self)(self.pgconn)
        successor.direct, successor.reply_seconds = self.direct, self.reply_seconds
        successor.refusal = self.refusal
        successor.autocommit = True
        successor._keep_plans_of(self)  # noqa: SLF001 - of the same class
        inherited.withhold(successor)
        self._ended = True
        self.pgconn = _CLOSED
        return successor

    def _keep_plans_of(self, other: Self) -> None:
        """Know what the session has prepared."""
        self._prepared = other._prepared
        self.prepared_max = PrepareManager.prepared_max

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
        if self._checked_out:
            raise TransactionError(
                f"a handler must not {call} its transaction: return to have it committed with the order's"
                " completion, raise to have it rolled back"
            )


# SET LOCAL, because that works behind a pooler too. The mark is gone when a handler sends COMMIT as text.
_BEGIN = """
BEGIN;
SET LOCAL jit = off;
SET LOCAL statement_timeout = '{statement} s';
SET LOCAL idle_in_transaction_session_timeout = '{idle} s';
SET LOCAL client_connection_check_interval = '{check} s';
SET LOCAL {mark} = 'set'
"""

_COMMIT = f"{COMMIT_DURABLY.format(local='true')}; COMMIT"

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
