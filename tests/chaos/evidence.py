"""What the harness saw itself, for the judge and the report."""

from dataclasses import dataclass, field
from uuid import UUID

from tests.chaos.clients import Submission
from tests.chaos.processes import Exit
from tests.chaos.scene import Happening, Stall

Span = tuple[float, float]
"""From and to, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that was not kept, if possible with an order as the witness."""

    promise: str
    order_id: UUID | None
    words: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """`locked` orders were held by a fault; in the spans `away` the server committed slowly or not at all.

    `differences` are those between the ledger and the orders, `failures` are the harness's own.
    """

    submissions: list[Submission]
    exits: list[Exit] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    locked: frozenset[UUID] = frozenset()
    away: list[Span] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lease_seconds: float = 10.0
    pooled: bool = False
