"""Put orders into the line, with one statement for all that arrive at the moment."""

from uuid import UUID

import psycopg

from orders_api.database import Database
from orders_api.together import Together
from schema import orders
from schema.errors import OrderNotTakenError
from schema.orders import NewOrder


class _RefusedError(Exception):
    """The database did not store these orders with one statement."""


class Entrance:
    """Stores orders; each is committed with those that arrived beside it, and fails or waits alone.

    When the database refuses the statement of several, or has it wait for a lock, each of them is stored by
    a statement of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._together = Together(self._submit_all)

    def submit(self, order: NewOrder) -> UUID:
        """Return the order's id when it is committed.

        Raises what `Database.connection` and `orders.submit` do.
        """
        try:
            order_id = self._together.ask(order)
        except _RefusedError:
            with self._database.connection() as connection:
                return orders.submit(connection, order)
        if order_id is None:
            raise OrderNotTakenError
        return order_id

    def _submit_all(self, arrived: list[NewOrder]) -> list[UUID | None]:
        with self._database.connection() as connection:
            try:
                return orders.submit_all(connection, arrived)
            except psycopg.Error as error:
                has_waited = isinstance(error, psycopg.errors.LockNotAvailable)
                if connection.closed or (len(arrived) == 1 and not has_waited):
                    raise
                raise _RefusedError from error
