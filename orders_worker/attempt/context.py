"""What a handler knows of its attempt, besides the order, and what it may write through."""

from typing import Any

import psycopg

from orders_worker.attempt.pool import Checkout
from schema.order import Claim


class Context:
    """One attempt, as its handler sees it.

    `attempt` counts from 1. `deadline` is on the clock of `time.monotonic()`, None for no limit: what is
    not returned by then is given up.
    """

    __slots__ = ("_cancel_requested", "_checkout", "_order_id", "attempt", "deadline")

    def __init__(self, claim: Claim, *, deadline: float | None, checkout: Checkout) -> None:
        self.attempt = claim.attempt
        self.deadline = deadline
        self._order_id = claim.order_id
        self._checkout = checkout
        self._cancel_requested = False

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of the order: give it to services outside, that they do a thing once."""
        return str(self._order_id)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for the order to be cancelled, or the attempt was given up."""
        return self._cancel_requested

    def request_cancel(self) -> None:
        """Let the handler know that its work is not wanted any more."""
        self._cancel_requested = True

    def transaction(self) -> psycopg.Connection[Any]:
        """Return the connection whose writes commit together with the order's completion, or not at all.

        Opened on first use, the same one ever after; it works as `with context.transaction() as
        connection:` too. Commit and rollback on it raise. It has the server's attention: after 0.8 leases
        without a statement the server ends it and the attempt fails, so open it late. Keep nothing of it
        beyond the handler's return: the next order's handler gets the same connection.
        """
        return self._checkout.connection()
