"""An order at each of its stations: as a client submits it, as it was placed, as a worker claims it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

RESCUES_TOGETHER = 2
"""After so many rescues in a row an order runs with nothing else in its worker process: it may kill it."""


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as a client submits it; `item_ids` keep their order."""

    user_id: str
    item_ids: tuple[str, ...]
    total_amount: Decimal


@dataclass(frozen=True, slots=True)
class Placed:
    """The order that a submission became. `replayed`: an earlier call with the same key placed it."""

    order_id: UUID
    replayed: bool


class Fence(NamedTuple):
    """Names one claim of an order, together with the worker's id."""

    order_id: UUID
    attempt: int


class Claim(NamedTuple):
    """An order as its worker received it.

    `attempt` counts from 1; `seq` is its ticket. `rescues` counts the attempts right before this one, in a
    row, whose workers died.
    """

    order_id: UUID
    attempt: int
    attempt_limit: int
    seq: int
    user_id: str
    item_ids: list[str]
    total_amount: Decimal
    created_at: datetime
    started_at: datetime
    rescues: int = 0

    @property
    def runs_alone(self) -> bool:
        """Whether nothing else may run in the worker process meanwhile."""
        return self.rescues >= RESCUES_TOGETHER

    @property
    def fence(self) -> Fence:
        """Return what names this claim."""
        return Fence(self.order_id, self.attempt)
