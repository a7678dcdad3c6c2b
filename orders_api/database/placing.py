"""Put orders into the line, with one statement for all that arrive at the moment."""

from enum import Enum, auto
from uuid import UUID

from orders_api.database.coalescer import TURN_SECONDS, Coalescer
from orders_api.database.pool import Database
from schema.errors import (
    DatabaseError,
    LockTimeoutError,
    OrderNotTakenError,
    StatementRefusedError,
)
from schema.order import NewOrder
from schema.queue import submit
from schema.runtime import logs

_log = logs.Log(__name__)


def _is_worth_a_retry(error: DatabaseError) -> bool:
    """Tell an error of the shared statement that a single one, which waits for locks, may not meet."""
    return isinstance(error, LockTimeoutError) or (
        isinstance(error, StatementRefusedError) and error.sqlstate == submit.RULE_IN_THE_WAY
    )


class _Not(Enum):
    """Why an order is not stored."""

    TAKEN = auto()
    TOGETHER = auto()


class Entrance:
    """Stores orders, those that arrive together with one statement.

    When the database refuses it, or has it wait for a lock, each of them is stored by a statement of its own:
    none fails for what is wrong with another. A slow trigger of the user's holds up all of them.
    """

    def __init__(self, database: Database, *, turn_seconds: float = TURN_SECONDS) -> None:
        self._database = database
        self._coalescer = Coalescer(self._submit_all, turn_seconds=turn_seconds)

    def submit(self, order: NewOrder) -> UUID:
        """Return the order's id when it is committed.

        Raises what `Database.connection` and `submit.submit` do.
        """
        stored = self._coalescer.call(order)
        if stored is _Not.TOGETHER:
            with self._database.connection() as connection:
                return submit.submit(connection, order)
        if stored is _Not.TAKEN:
            raise OrderNotTakenError
        return stored

    def _submit_all(self, arrived: list[NewOrder]) -> list[UUID | _Not]:
        with self._database.connection() as connection:
            try:
                return [order_id or _Not.TAKEN for order_id in submit.submit_all(connection, arrived)]
            except DatabaseError as error:
                if connection.closed or (len(arrived) == 1 and not _is_worth_a_retry(error)):
                    raise
                _log.warning("orders_stored_singly", count=len(arrived), error=error)
                return [_Not.TOGETHER] * len(arrived)
