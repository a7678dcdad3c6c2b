"""How long orders of dead and stalled workers stayed theirs."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.evidence import Breach, Evidence, overlaps
from tests.chaos.faults import HARMLESS

KILLED_SECONDS = 5.0
"""The promise, for a worker that was killed."""

GRACE_SECONDS = 5.0
"""What may come on top of the lease, for one that stalls or is behind a pooler."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """One order taken from a worker. `seconds` count from the worker's end or the begin of its stall.

    `disturbed` means that something else was wrong meanwhile or in the lease before.
    """

    order_id: UUID
    seconds: float
    killed: bool
    disturbed: bool


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
    """Find what caused each rescue, and how long it took; leave out those with no cause we know."""
    rescues = []
    for order_id, rescued_at, pid, claimed_at in connection.execute(_RESCUED):
        cause = _cause(evidence, pid, claimed_at=claimed_at, rescued_at=rescued_at)
        if cause is not None:
            lost_at, killed = cause
            disturbed = order_id in evidence.locked or _is_disturbed(evidence, lost_at, until=rescued_at)
            rescues.append(Rescue(order_id, rescued_at - lost_at, killed=killed, disturbed=disturbed))
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


def _is_disturbed(evidence: Evidence, lost_at: float, *, until: float) -> bool:
    others = [
        (each.began_at, each.ended_at)
        for each in evidence.happenings
        if each.kind not in HARMLESS
        # The stall that is the cause.
        and not (each.kind.startswith("stop-worker") and abs(each.began_at - lost_at) < 1)
    ]
    return overlaps([*others, *evidence.away], lost_at - evidence.lease_seconds, until)


def breaches(rescues: list[Rescue], evidence: Evidence) -> list[Breach]:
    """Return the undisturbed ones that took too long."""
    found = []
    for rescue in rescues:
        by_session = rescue.killed and not evidence.pooled
        limit = KILLED_SECONDS if by_session else evidence.lease_seconds + GRACE_SECONDS
        if not rescue.disturbed and rescue.seconds > limit:
            words = f"claimable again after {rescue.seconds:.1f} s, {limit:g} s are promised"
            found.append(Breach("rescue", rescue.order_id, words))
    return found
