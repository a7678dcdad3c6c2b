"""The one door for placing orders: which statement stores them, and what is logged and raised about it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from uuid import UUID

from orders_api.database.coalescer import TURN_SECONDS, Coalescer
from orders_api.database.pool import Database
from schema.errors import (
    DatabaseError,
    LockTimeoutError,
    OrderNotTakenError,
    OrdersError,
    OutcomeUnknownError,
    StatementRefusedError,
)
from schema.order import NewOrder, Placed
from schema.queue import idempotency, submit
from schema.queue.batch import PlacedBatch, submit_batch
from schema.runtime import logs

_log = logs.Log(__name__)


class OrderOutcomeUnknownError(OrdersError):
    """Nobody knows whether the order was placed; `repeatable` if it came with an idempotency key."""

    def __init__(self, *, repeatable: bool) -> None:
        advice = (
            "sending it again with the same Idempotency-Key is safe."
            if repeatable
            else "sending it again may place it twice. With an Idempotency-Key it could not."
        )
        super().__init__(
            "The connection to the database was lost while the order was being stored. It may have been"
            f" placed or not; {advice}"
        )
        self.repeatable = repeatable  # otherwise an invitation to try again would invite a second order


class _Refused(Enum):
    """The answer of a shared statement that stored none of its orders: another one may be the reason."""

    SUBMIT_ALONE = "submit it alone"


class Placing:
    """Places orders. An order without a key shares its statement with those that arrive at the same moment.

    When the database refuses the shared statement, or makes it wait for a lock, each of its orders gets a
    statement of its own, so that no order fails for what is wrong with another. A user's slow trigger slows
    down all of them. `on_commit` is called after each commit of new orders and must not block.
    """

    def __init__(
        self, database: Database, on_commit: Callable[[], None], *, turn_seconds: float = TURN_SECONDS
    ) -> None:
        self._database = database
        self._on_commit = on_commit
        self._coalescer = Coalescer(self._submit_all, turn_seconds=turn_seconds)

    def place(self, order: NewOrder, key: str | None = None) -> Placed:
        """Return the order when it is committed, now or by an earlier call with the same `key`.

        Raises `OrderNotTakenError`, `OrderOutcomeUnknownError` when the connection was lost during it,
        `DatabaseUnavailableError` when nothing was stored, and with a key `KeyReusedError`.
        """
        with _failures(repeatable=key is not None):
            placed = self._submit_once(order, key) if key is not None else self._submit(order)
        if placed.replayed:
            _log.info("order_replayed", order_id=placed.order_id)
        else:
            self._on_commit()
            _log.info("order_submitted", order_id=placed.order_id)
        return placed

    def place_batch(self, orders: Sequence[NewOrder], key: str | None = None) -> PlacedBatch:
        """Return the batch when all of it is committed: its tickets are in its order. Raises as `place` does.

        One transaction of its own: what is refused in one order refuses the batch.
        """
        with _failures(repeatable=key is not None), self._database.connection() as connection:
            placed = submit_batch(connection, orders, key=key)
        event = "batch_replayed" if placed.replayed else "batch_submitted"
        _log.info(event, count=len(orders), first_order_id=placed.order_ids[0])
        if not placed.replayed:
            self._on_commit()
        return placed

    def _submit_once(self, order: NewOrder, key: str) -> Placed:
        with self._database.connection() as connection:
            return idempotency.submit_once(connection, order, key=key)

    def _submit(self, order: NewOrder) -> Placed:
        order_id = self._coalescer.call(order)
        if order_id is _Refused.SUBMIT_ALONE:
            with self._database.connection() as connection:
                order_id = submit.submit(connection, order)
        if order_id is None:
            raise OrderNotTakenError
        return Placed(order_id, replayed=False)

    def _submit_all(self, orders: list[NewOrder]) -> Sequence[UUID | _Refused | None]:
        with self._database.connection() as connection:
            try:
                return submit.submit_all(connection, orders)
            except DatabaseError as error:
                if connection.closed or (len(orders) == 1 and not _may_pass_alone(error)):
                    raise
                _log.warning("orders_stored_singly", count=len(orders), error=error)
                return [_Refused.SUBMIT_ALONE] * len(orders)


def _may_pass_alone(error: DatabaseError) -> bool:
    """Tell whether the other statement, which waits for locks and minds no rule, may store the order."""
    return isinstance(error, LockTimeoutError) or (
        isinstance(error, StatementRefusedError) and error.sqlstate == submit.RULE_IN_THE_WAY
    )


@contextmanager
def _failures(*, repeatable: bool) -> Iterator[None]:
    """Log and raise what went wrong while orders were stored; `repeatable` if a key came with them."""
    try:
        yield
    except OrderNotTakenError as error:
        _log.error("order_not_taken", error=error)
        raise
    except OutcomeUnknownError as error:
        _log.warning("submit_outcome_unknown", error=error)
        raise OrderOutcomeUnknownError(repeatable=repeatable) from error
