"""The one door for showing an order: requests that ask at the same moment share a statement."""

from uuid import UUID

from orders_api.database.coalescer import TURN_SECONDS, Coalescer
from orders_api.database.pool import Database
from schema.reports import show


class Showing:
    """Shows orders as they are at the moment of the request, or later."""

    def __init__(self, database: Database, *, turn_seconds: float = TURN_SECONDS) -> None:
        self._database = database
        self._coalescer = Coalescer(self._show_all, turn_seconds=turn_seconds)

    def show(self, order_id: UUID) -> str | None:
        """Return the order as a JSON object, None if there is none. Raises as `Database.connection` does."""
        return self._coalescer.call(order_id)

    def _show_all(self, order_ids: list[UUID]) -> list[str | None]:
        with self._database.connection() as connection:
            found = show.show(connection, order_ids)
        return [found.get(order_id) for order_id in order_ids]
