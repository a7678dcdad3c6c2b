"""How long orders of dead and stalled workers stayed theirs."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.evidence import Breach, Evidence
from tests.chaos.faults import HARMLESS

KILLED_SECONDS = 5.0
"""The promise, for a worker that was killed."""

GRACE_SECONDS = 5.0
"""What may come on top of the lease, for one that stalls or is behind a pooler."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """One order taken from a worker. `seconds` count from the worker's end or the begin of its stall.

    `seconds_undisturbed` count from when nothing else was wrong any more; they are fewer if something was,
    also in the lease before.
    """

    order_id: UUID
    seconds: float
    seconds_undisturbed: float
    killed: bool

    @property
    def disturbed(self) -> bool:
        """Whether more was wrong than that one worker."""
        return self.seconds_undisturbed < self.seconds


_RESCUED = """
SELECT attempts.order_id,
       extract(epoch FROM attempts.ended_at)::float8,
       workers.pid,
       extract(epoch FROM attempts.started_at)::float8
FROM attempts
JOIN workers USING (worker_id)
WHERE attempts.outcome = 'rescued'
ORDER BY attempts.ended_at
"""


def measure(connection: psycopg.Connection[Any], evidence: Evidence) -> list[Rescue]:
    """Find what caused each rescue, and how long it took; leave out those with no cause we know.

    Nothing is said about orders that a fault had locked.
    """
    rescues = []
    for order_id, rescued_at, pid, claimed_at in connection.execute(_RESCUED):
        cause = _cause(evidence, pid, claimed_at=claimed_at, rescued_at=rescued_at)
        if cause is not None and order_id not in evidence.locked:
            lost_at, killed = cause
            since = _undisturbed_since(evidence, lost_at, until=rescued_at)
            rescues.append(Rescue(order_id, rescued_at - lost_at, rescued_at - since, killed=killed))
    return rescues


def _cause(
    evidence: Evidence, pid: int, *, claimed_at: float, rescued_at: float
) -> tuple[float, bool] | None:
    """Return since when the worker was gone, and whether it was killed."""
    for stall in evidence.stalls:
        if stall.pid == pid and stall.began_at - 1 <= rescued_at <= stall.ended_at + 1:
            return stall.began_at, False
    for each in evidence.exits:
        if each.pid == pid and claimed_at <= each.at <= rescued_at:
            return each.at, True
    return None


def _undisturbed_since(evidence: Evidence, lost_at: float, *, until: float) -> float:
    """Return when the last other thing that was wrong came right, `lost_at` if nothing was.

    The lease before counts too: what ended in it counts as ended when the worker was lost and a moment more.
    """
    spans = [
        (each.began_at, each.ended_at)
        for each in evidence.happenings
        if each.kind not in HARMLESS
        # The stall that is the cause.
        and not (each.kind.startswith("stop-worker") and abs(each.began_at - lost_at) < 1)
    ]
    ends = [
        max(ended_at, lost_at + 0.001)
        for began_at, ended_at in [*spans, *evidence.away]
        if began_at <= until and ended_at >= lost_at - evidence.lease_seconds
    ]
    return min(max(ends, default=lost_at), until)


def breaches(rescues: list[Rescue], evidence: Evidence) -> list[Breach]:
    """Return those that took too long; one that was disturbed may take a lease and a little from then on."""
    found = []
    for rescue in rescues:
        by_session = rescue.killed and not evidence.pooled and not rescue.disturbed
        limit = KILLED_SECONDS if by_session else evidence.lease_seconds + GRACE_SECONDS
        if rescue.seconds_undisturbed > limit:
            words = f"claimable again after {rescue.seconds_undisturbed:.1f} s, {limit:g} s are promised"
            found.append(Breach("rescue", rescue.order_id, words))
    return found
