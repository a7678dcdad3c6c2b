"""The one thing a user replaces: what is done with an order. Imports nothing else of this project."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import psycopg

_LONGEST_SECONDS = 31 * 86_400


class Order(Protocol):
    """The order that a handler is given. `attempt` counts from 1; `seq` is its ticket."""

    @property
    def order_id(self) -> UUID:
        """The order's name."""

    @property
    def user_id(self) -> str:
        """Who ordered."""

    @property
    def item_ids(self) -> Sequence[str]:
        """What was ordered, in order."""

    @property
    def total_amount(self) -> Decimal:
        """The order's total, with two decimals."""

    @property
    def attempt(self) -> int:
        """Which attempt at the order this is."""

    @property
    def seq(self) -> int:
        """The place in line by which it was claimed."""

    @property
    def created_at(self) -> datetime:
        """When it was placed."""

    @property
    def started_at(self) -> datetime:
        """When this attempt was claimed."""


class Context(Protocol):
    """One attempt, as its handler sees it."""

    @property
    def attempt(self) -> int:
        """Which attempt at the order this is, from 1."""

    @property
    def deadline(self) -> float | None:
        """When the attempt is given up, on the clock of `time.monotonic()`; None for no limit."""

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of the order. Give it to an outside service, so that it acts once."""

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for the order to be cancelled, or the attempt was given up."""

    def transaction(self) -> psycopg.Connection[Any]:
        """Return the connection whose writes commit together with the order's completion, or not at all.

        It opens on first use; later calls return the same one. `with context.transaction() as connection:`
        works too. The worker commits: `commit`, `rollback` and `close` raise. The server ends the
        transaction after 0.8 leases (8 s by default) without a statement, and the attempt fails: open it
        late. Keep no reference to it after the handler returns.
        """


class Handler(Protocol):
    """Works on one order, in a thread of its own.

    Returning means completed. `Reject` fails the order for good, `Cancelled` agrees to a cancel that was
    asked for, any other exception retries the order later while attempts are left, and `Retry` says when.
    An order may be attempted more than once: write what must happen once through `context.transaction()`,
    or give `context.idempotency_key` to the service that does it.
    """

    def __call__(self, order: Order, context: Context, /) -> object:
        """Return when the order is done; an awaitable is awaited, any other value is ignored."""


class Reject(Exception):  # noqa: N818 - what the handler says, not what went wrong
    """Raise it with a reason when an order can never succeed: it fails at once, with no retry."""


class Retry(Exception):  # noqa: N818 - as above
    """Raise it to have the order attempted again `after` so many seconds, instead of the usual pause.

    The attempt is spent: with none left the order fails. Raises `ValueError` unless `after` is from 0 to 31
    days.
    """

    def __init__(self, reason: str = "", *, after: float) -> None:
        if not 0 <= after <= _LONGEST_SECONDS:
            raise ValueError(f"Retry(after={after!r}): expected seconds from 0 to {_LONGEST_SECONDS:,}")
        super().__init__(reason)
        self._after = float(after)

    @property
    def after(self) -> float:
        """How many seconds to wait before the next attempt."""
        return self._after


class Cancelled(Exception):  # noqa: N818 - as above
    """Raise it when `context.cancel_requested` and the work is undone: the order ends cancelled."""
