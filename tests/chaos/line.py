"""Whether orders were claimed first come, first served, and once at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from schema.reports import audit
from schema.reports.verdict import Inversion, Verdict
from schema.runtime.connection import Connection
from tests.chaos.evidence import Breach, Evidence

FCFS = "first come, first served"
FENCED = "fenced"

TOLERANCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """What was found. Not counted as `inversions` are orders `locked` by a fault then, and those `late` ones
    whose commit a server that was slow or gone held up: one is in line from the commit on.
    """

    verdict: Verdict
    inversions: list[Inversion]
    locked: int
    late: int

    def breaches(self) -> Iterator[Breach]:
        """Return each finding as a broken promise."""
        for inversion in self.inversions:
            yield Breach(FCFS, inversion.passed.order_id, str(inversion))
        if self.verdict.unjudged:
            yield Breach(
                FCFS, None, f"{self.verdict.unjudged} claims lack a ticket or a time to judge them by"
            )
        for found in self.verdict.double_starts:
            yield Breach(FENCED, found.order_id, str(found))
        for shared in self.verdict.shared_tickets:
            yield Breach(FCFS, shared.order_id, str(shared))


def judge_line(connection: Connection, evidence: Evidence) -> Line:
    """Read what the database has on record about claims."""
    verdict = audit.check(connection, tolerance_seconds=TOLERANCE_SECONDS)
    unlocked = [each for each in verdict.inversions if not _was_locked(each, evidence)]
    found = [each for each in unlocked if not _is_late(each, evidence)]
    return Line(
        verdict,
        inversions=found,
        locked=len(verdict.inversions) - len(unlocked),
        late=len(unlocked) - len(found),
    )


def _was_locked(inversion: Inversion, evidence: Evidence) -> bool:
    """Tell whether a fault had the passed order locked when it was passed."""
    moment = _passed_at(inversion)
    return evidence.was_locked(inversion.passed.order_id, moment, moment)


def _passed_at(inversion: Inversion) -> float:
    assert inversion.passer.started_at is not None
    return inversion.passer.started_at.timestamp()


def _is_late(inversion: Inversion, evidence: Evidence) -> bool:
    """Tell whether the passed order can't have been seen in line for long enough before it was passed."""
    entered_at = _in_line_from(inversion.passed.queued_at, evidence)
    return _passed_at(inversion) < entered_at + TOLERANCE_SECONDS


def _in_line_from(queued_at: datetime, evidence: Evidence) -> float:
    """Return when the commit was seen at the latest, if the server was away when it was under way."""
    moment = queued_at.timestamp()
    for began_at, ended_at in evidence.away:
        if began_at - TOLERANCE_SECONDS <= moment <= ended_at:
            moment = ended_at
    return moment
