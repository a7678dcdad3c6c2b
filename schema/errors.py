"""What can go wrong, as small classes that build their own message.

Nothing here knows HTTP or exit statuses by heart: `orders_api.problems` maps errors to answers and
`schema.runtime.startup` maps them to exit statuses, each in one place.
"""

from uuid import UUID


class OrdersError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingError(OrdersError):
    """A setting that the process can't start with. `value` is shown as given: never pass a secret."""

    def __init__(self, name: str, value: str | None, expected: str) -> None:
        shown = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{name} {shown}: {expected}")
        self.name = name


class StartError(OrdersError):
    """Something outside the settings keeps the process from starting; the message names the remedy."""


class DatabaseError(OrdersError):
    """A statement failed: unavailable, outcome unknown or refused, which are the three classes below."""


class DatabaseUnavailableError(DatabaseError):
    """Nothing was changed, and a later try may succeed.

    There is no connection, or the server ended the statement for a reason of its own: a timeout, a lock, a
    full disk.
    """


class DatabaseReadOnlyError(DatabaseUnavailableError):
    """The server takes no writes: another one may be the primary now."""


class AccessDeniedError(DatabaseUnavailableError):
    """Waiting for this connection is in vain: a password, role, database or parameter of the URL is wrong."""


class StatementEndedError(DatabaseUnavailableError):
    """The server is there, and ended the statement for a reason of its own: a timeout, a lock, no room."""


class DatabaseFullError(StatementEndedError):
    """The server's disk has no room."""


class LockTimeoutError(StatementEndedError):
    """The statement waited longer for a lock than its session allows."""


class OutcomeUnknownError(DatabaseError):
    """The connection was lost during the call: what was sent on it may have been done or not."""


class StatementRefusedError(DatabaseError):
    """The database refused a row or the statement: the same call will fail again.

    `sqlstate` is PostgreSQL's code (https://www.postgresql.org/docs/current/errcodes-appendix.html);
    `constraint`, `table` and `column` are what the server named, if anything.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str = "",
        constraint: str | None = None,
        table: str | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.table = table
        self.column = column

    @property
    def is_undefined_table(self) -> bool:
        """Whether a table, or the schema it should be in, does not exist."""
        return self.sqlstate in {"42P01", "3F000"}

    @property
    def is_forbidden(self) -> bool:
        """Whether the role lacks a privilege, or a policy of row level security keeps it out."""
        return self.sqlstate == "42501"


class OrderNotFoundError(OrdersError):
    """There is no order of that id."""

    def __init__(self, order_id: UUID) -> None:
        super().__init__(f"there is no order {order_id}")


class OrderNotTakenError(OrdersError):
    """The database said yes to an order and has none of that id: a trigger or rule of its user's did that."""

    def __init__(self) -> None:
        super().__init__("the database did not take the order: a trigger or rule on its table dropped it")


class KeyReusedError(OrdersError):
    """The idempotency key stands for another order already."""

    def __init__(self) -> None:
        super().__init__(
            "this idempotency key came with another order before: send a new one with a new order"
        )


class IllegalMoveError(OrdersError):
    """The order's state does not allow what was asked for."""

    def __init__(self, order_id: UUID, move: str, *, status: str) -> None:
        super().__init__(f"order {order_id} is {status}: it can't be moved by {move}")


class OrderLockedError(OrdersError):
    """Somebody has the order's row locked right now; the same call may succeed later."""

    def __init__(self, order_id: UUID) -> None:
        super().__init__(f"order {order_id} is locked by another transaction: try again later")


class SwitchLockedError(StartError):
    """Somebody has the row locked that pauses the queue."""

    def __init__(self) -> None:
        super().__init__("the queue's switch is locked by another transaction: try again later")
