"""How long orders of dead and stalled workers stayed theirs."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg

from tests.chaos.evidence import MOMENT_SECONDS, Breach, Evidence
from tests.chaos.faults import HARMLESS, NETWORK
from tests.chaos.judge import RESCUE
from tests.chaos.scene import Happening, Span

KILLED_SECONDS = 5.0
"""The promise, for a worker that was killed."""

GRACE_SECONDS = 5.0
"""What may come on top of the lease, for one that stalls or is behind a pooler."""


class Cause(StrEnum):
    """Why a worker lost its orders."""

    KILL = "kill"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Rescue:
    """One order taken from a worker. `seconds` count from the worker's end or the begin of its stall.

    `seconds_undisturbed` count from when one of the others could do it again; they are fewer if none could,
    also in the lease before.
    """

    order_id: UUID
    seconds: float
    seconds_undisturbed: float
    cause: Cause

    @property
    def disturbed(self) -> bool:
        """Whether more was wrong than that one worker."""
        return self.seconds_undisturbed < self.seconds


@dataclass(frozen=True, slots=True)
class Rescues:
    """All of them: those that can be timed, and those from workers that had not ended and not stood still.

    Those of `cut_off` workers had a fault of the network or the server to explain them, those of `living`
    workers nothing. `locked` orders were held by a fault meanwhile: nothing is said about them.
    """

    timed: list[Rescue] = field(default_factory=list)
    cut_off: list[UUID] = field(default_factory=list)
    living: list[UUID] = field(default_factory=list)
    locked: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the database has on record about one rescue."""

    order_id: UUID
    pid: int
    claimed_at: float
    declared_at: float
    rescued_at: float


_RESCUED = """
SELECT attempts.order_id,
       workers.pid,
       extract(epoch FROM attempts.started_at)::float8,
       extract(epoch FROM LEAST(workers.dead_at, attempts.ended_at))::float8,
       extract(epoch FROM attempts.ended_at)::float8
FROM attempts
JOIN workers USING (worker_id)
WHERE attempts.outcome = 'rescued'
ORDER BY attempts.ended_at
"""


def measure(connection: psycopg.Connection[Any], evidence: Evidence) -> Rescues:
    """Find what caused each rescue, and how long it took."""
    rescues = Rescues()
    for row in connection.execute(_RESCUED):
        _sort(_Taken(*row), evidence, rescues)
    return rescues


def _sort(taken: _Taken, evidence: Evidence, rescues: Rescues) -> None:
    machine = evidence.machine(taken.pid, claimed_at=taken.claimed_at)
    if (loss := _loss(evidence, taken)) is None:
        touched = _was_touched(evidence, machine, until=taken.declared_at)
        (rescues.cut_off if touched else rescues.living).append(taken.order_id)
        return
    lost_at, cause = loss
    if evidence.was_locked(taken.order_id, lost_at, taken.rescued_at):
        rescues.locked.append(taken.order_id)
        return
    by_lease = cause == Cause.STALL or evidence.pooled
    since = _undisturbed_since(evidence, machine, lost_at=lost_at, until=taken.rescued_at, by_lease=by_lease)
    rescues.timed.append(
        Rescue(taken.order_id, taken.rescued_at - lost_at, taken.rescued_at - since, cause=cause)
    )


def _loss(evidence: Evidence, taken: _Taken) -> tuple[float, Cause] | None:
    """Return since when the worker was gone, and why.

    It was killed if it had ended when it was declared dead. A stall is the cause until the worker, awake,
    has had a lease to be heard: what comes later has another.
    """
    for each in evidence.exits:
        if each.pid == taken.pid and _between(taken.claimed_at, each.at, taken.declared_at):
            return min(each.at, taken.rescued_at), Cause.KILL
    stalls = [
        stall.began_at
        for stall in evidence.stalls
        if stall.pid == taken.pid
        and taken.claimed_at <= stall.ended_at
        and stall.began_at <= taken.declared_at <= stall.ended_at + evidence.lease_seconds
    ]
    return (max(stalls), Cause.STALL) if stalls else None


def _between(first: float, moment: float, last: float) -> bool:
    return first - MOMENT_SECONDS <= moment <= last + MOMENT_SECONDS


def _was_touched(evidence: Evidence, machine: str, *, until: float) -> bool:
    """Tell whether a fault can have kept the worker from being heard."""
    from_ = until - evidence.lease_seconds - GRACE_SECONDS
    spans = _spans(_disturbing(evidence.wrong_at(machine)))
    return any(began_at <= until and from_ <= ended_at for began_at, ended_at in [*spans, *evidence.away])


def _undisturbed_since(
    evidence: Evidence, lost: str, *, lost_at: float, until: float, by_lease: bool
) -> float:
    """Return from when on one of the others could see that the worker is gone, and return its orders.

    The lost machine's own network counts too: what it holds back keeps the worker's session alive. Of a lease
    that is over a worker says nothing until it has itself run for one: `by_lease` the starts of others count.
    """
    others = [
        _last_end(
            [
                *_spans(_disturbing(evidence.wrong_at(name))),
                *((each.at, each.at) for each in evidence.exits if by_lease and each.name == name),
            ],
            evidence,
            lost_at=lost_at,
            until=until,
        )
        for name in evidence.workers
        if name != lost
    ]
    network = [each for each in evidence.wrong_at(lost) if each.kind in NETWORK]
    own = _last_end(_spans(network), evidence, lost_at=lost_at, until=until)
    return min(max(min(others, default=lost_at), own), until)


def _disturbing(happenings: list[Happening]) -> list[Happening]:
    return [each for each in happenings if each.kind not in HARMLESS]


def _spans(happenings: list[Happening]) -> list[Span]:
    return [(each.began_at, each.ended_at) for each in happenings]


def _last_end(spans: list[Span], evidence: Evidence, *, lost_at: float, until: float) -> float:
    """Return when the last of it came right, or the server, `lost_at` if nothing was wrong.

    The lease before counts too: what ended in it counts as ended when the worker was lost and a moment more.
    """
    ends = [
        max(ended_at, lost_at + 0.001)
        for began_at, ended_at in [*spans, *evidence.away]
        if began_at <= until and ended_at >= lost_at - evidence.lease_seconds
    ]
    return max(ends, default=lost_at)


def breaches(rescues: Rescues, evidence: Evidence) -> list[Breach]:
    """Return those that took too long; one that was disturbed may take a lease and a little from then on."""
    found = [Breach(RESCUE, order_id, "was taken from a living worker") for order_id in rescues.living]
    for rescue in rescues.timed:
        by_session = rescue.cause == Cause.KILL and not evidence.pooled and not rescue.disturbed
        limit = KILLED_SECONDS if by_session else evidence.lease_seconds + GRACE_SECONDS
        if rescue.seconds_undisturbed > limit:
            words = f"claimable again after {rescue.seconds_undisturbed:.1f} s, {limit:g} s are promised"
            found.append(Breach(RESCUE, rescue.order_id, words))
    return found
