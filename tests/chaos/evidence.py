"""What the harness saw itself, for the judge and the report."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from tests.chaos.clients import Submission
from tests.chaos.processes import Exit
from tests.chaos.scene import EVERYWHERE, SERVER, Happening, Span, Stall

MOMENT_SECONDS = 1.0
"""How late the end of a process may be seen, or the clocks of server and harness differ."""

LOCK_SECONDS = 0.5
"""How long an order that was locked may still go unseen."""


class Kind(StrEnum):
    """What the report counts by itself."""

    LOST = "lost"
    EFFECT_REPEATED = "effect repeated"
    EFFECT_MISSING = "effect missing"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that was not kept, if possible with an order as the witness."""

    promise: str
    order_id: UUID | None
    words: str
    kind: Kind = Kind.OTHER


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was sent, what was done, and what was noticed meanwhile.

    Faults held the `locked` orders at those times; in the spans `away` the server committed slowly or not
    at all. `differences` are those between the ledger and the orders, `failures` are the harness's own,
    `workers` are the names of the workers' machines.
    """

    submissions: list[Submission]
    exits: list[Exit] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    locked: dict[UUID, list[Span]] = field(default_factory=dict)
    away: list[Span] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    workers: tuple[str, ...] = ()
    lease_seconds: float = 10.0
    pooled: bool = False

    def machine(self, pid: int, *, claimed_at: float) -> str:
        """Return the name of the machine of the process that had this id then, empty if nobody saw it end."""
        ends = (each for each in self.exits if each.pid == pid and claimed_at <= each.at + MOMENT_SECONDS)
        return next((each.name for each in ends), "")

    def wrong_at(self, machine: str) -> list[Happening]:
        """Return the faults that reached this machine."""
        return [each for each in self.happenings if each.place in (machine, EVERYWHERE, SERVER)]

    def was_locked(self, order_id: UUID, from_: float, to: float) -> bool:
        """Tell whether a fault had the order locked at any time between, or until a moment before."""
        spans = self.locked.get(order_id, [])
        return any(began_at <= to and from_ <= ended_at + LOCK_SECONDS for began_at, ended_at in spans)
