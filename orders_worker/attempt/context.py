"""What a handler is given beside the order: `orders_worker.handler.Context` has the words for its author."""

from typing import Any

import psycopg

from orders_worker.attempt.pool import Checkout
from schema.order import Claim


class Context:
    """One attempt, as its handler sees it."""

    __slots__ = ("_cancel_requested", "_checkout", "_order_id", "attempt", "deadline")

    def __init__(self, claim: Claim, *, deadline: float | None, checkout: Checkout) -> None:
        self.attempt = claim.attempt
        self.deadline = deadline
        self._order_id = claim.order_id
        self._checkout = checkout
        self._cancel_requested = False

    @property
    def idempotency_key(self) -> str:
        """The order's id: the same in every attempt."""
        return str(self._order_id)

    @property
    def cancel_requested(self) -> bool:
        """Whether the order is to be cancelled, or the attempt was abandoned."""
        return self._cancel_requested

    def request_cancel(self) -> None:
        """Tell the handler that its work is not wanted any more."""
        self._cancel_requested = True

    def transaction(self) -> psycopg.Connection[Any]:
        """Return the attempt's connection, whose transaction commits with the completion."""
        return self._checkout.connection()
