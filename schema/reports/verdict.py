"""What `schema.reports.audit` finds in the record of claims, and its words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

SHOWN = 20
"""Findings of a kind that a report names; it counts them all."""


class Turn(NamedTuple):
    """An order's time in line, by one ticket. `started_at` is its claim, None while it is in line.

    `runs_alone`: it waited for a worker process with nothing else in it, and might be passed.
    """

    order_id: UUID
    seq: int
    queued_at: datetime
    started_at: datetime | None
    runs_alone: bool = False


@dataclass(frozen=True, slots=True)
class Inversion:
    """`passed` had been in line for a while when `passer`, with a larger ticket, was claimed before it.

    Of all that passed it, `passer` is the one claimed last.
    """

    passed: Turn
    passer: Turn

    def __str__(self) -> str:
        claimed = f"claimed {self.passed.started_at}" if self.passed.started_at else "still there"
        return (
            f"inversion: order {self.passed.order_id} (ticket {self.passed.seq}, in line since"
            f" {self.passed.queued_at}, {claimed}) was passed by order {self.passer.order_id}"
            f" (ticket {self.passer.seq}, claimed {self.passer.started_at})"
        )


class Evidence(StrEnum):
    """What shows that two workers may have worked on an order at once."""

    OVERLAP = "was claimed before the attempt before it had ended"
    NO_END = "was claimed with no end on record for the attempt before it"
    HELD_AFTER_END = "has its end on record, but the order is held or completed by it"
    TWO_CLAIMS = "is on record with two different claims"


@dataclass(frozen=True, slots=True)
class DoubleStart:
    """The claim of an order that was, or may have been, somebody else's at the time."""

    order_id: UUID
    attempt: int
    evidence: Evidence

    def __str__(self) -> str:
        return f"double start: attempt {self.attempt} of order {self.order_id} {self.evidence}"


@dataclass(frozen=True, slots=True)
class SharedTicket:
    """Two orders with one place in line, which no constraint forbids: nobody can say whose turn it is."""

    seq: int
    order_id: UUID
    other_id: UUID

    def __str__(self) -> str:
        return f"shared ticket: orders {self.order_id} and {self.other_id} both have ticket {self.seq}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the record shows: `claims` on record, `orders` there are, and all findings.

    `passed_alone` turns in line were passed as they may be: the order was to run alone.
    `unjudged` claims lack their ticket or a time: made before revision 0002, imported, or changed by hand.
    They are left out of the search for inversions.
    """

    claims: int
    orders: int
    unjudged: int
    inversions: list[Inversion]
    passed_alone: int
    double_starts: list[DoubleStart]
    shared_tickets: list[SharedTicket]

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was found."""
        return not (self.inversions or self.double_starts or self.shared_tickets)

    def lines(self) -> Iterator[str]:
        """Put it into words: a summary, then the first `SHOWN` findings of each kind, one a line."""
        shared = f", {_count(self.shared_tickets, 'shared ticket')}" if self.shared_tickets else ""
        yield (
            f"{self.claims:,} claims on {self.orders:,} orders: {_count(self.inversions, 'inversion')},"
            f" {_count(self.double_starts, 'double start')}{shared}"
        )
        if self.unjudged:
            yield f"not judged: {self.unjudged:,} claims whose ticket or times are not on record"
        if self.passed_alone:
            yield f"passed while they waited to run alone, as they may be: {self.passed_alone:,} orders"
        for findings in (self.inversions, self.double_starts, self.shared_tickets):
            yield from map(str, findings[:SHOWN])
            if len(findings) > SHOWN:
                yield f"and {len(findings) - SHOWN:,} more"
        if self.inversions:
            yield "an order may be passed while somebody has its row locked or its insert is not committed:"
            yield "the database keeps no record of either"


def _count(findings: Sequence[object], noun: str) -> str:
    return f"{len(findings):,} {noun}{'' if len(findings) == 1 else 's'}" if findings else f"no {noun}"
