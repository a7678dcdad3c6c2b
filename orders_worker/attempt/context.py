"""What a handler is given beside the order: `orders_worker.handler.Context` has the words for its author."""

from typing import Any

import psycopg

from orders_worker.attempt.checkout import Checkout
from schema.order import Claim


class Context:
    """One attempt, as its handler sees it. `cancel_requested` is set also when the attempt was abandoned."""

    __slots__ = ("_checkout", "_order_id", "attempt", "cancel_requested", "deadline")

    def __init__(self, claim: Claim, *, deadline: float | None, checkout: Checkout) -> None:
        self.attempt = claim.attempt
        self.deadline = deadline
        self.cancel_requested = False
        self._order_id = claim.order_id
        self._checkout = checkout

    @property
    def idempotency_key(self) -> str:
        """The order's id: the same in every attempt."""
        return str(self._order_id)

    def transaction(self) -> psycopg.Connection[Any]:
        """Return the attempt's connection, whose transaction commits with the completion."""
        return self._checkout.connection()
