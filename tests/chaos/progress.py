"""How long nothing was completed: after each kind of fault, and beside locked rows."""

import bisect
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psycopg

from tests.chaos.evidence import Breach, Evidence
from tests.chaos.scene import Happening

LIMIT_SECONDS = 30.0
AFTERWARDS_SECONDS = 10.0

STUCK_SECONDS = 3.0
"""What may pass without a completion while a few orders are locked and nothing else is wrong."""

_LOCK = "lock-rows"
_BESIDE_A_LOCK = frozenset({_LOCK, "long-snapshot"})
"""What no order should wait for, but those that are locked."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """The longest seconds without a completion: around each kind of fault, and during each lock by itself."""

    around: dict[str, float]
    while_locked: list[float]


_COMPLETIONS = """
SELECT extract(epoch FROM finished_at)::float8
FROM orders
WHERE status = 'completed'
ORDER BY finished_at
"""


_OVER = """
SELECT CASE
           WHEN bool_or(finished_at IS NULL) THEN 'infinity'
           ELSE extract(epoch FROM max(finished_at))::float8
       END
FROM orders
"""


def measure(connection: psycopg.Connection[Any], evidence: Evidence) -> Pauses:
    """Read from the orders when nothing was completed."""
    moments = [moment for (moment,) in connection.execute(_COMPLETIONS)]
    row = connection.execute(_OVER).fetchone()
    over_at = float(row[0] or 0) if row else 0.0
    return Pauses(
        around=_longest_around(evidence.happenings, moments, over_at=over_at),
        while_locked=[
            _longest(moments, each.began_at, min(each.ended_at, over_at))
            for each in evidence.happenings
            if each.kind == _LOCK and _is_alone(each, evidence)
        ],
    )


def _longest_around(happenings: list[Happening], moments: list[float], *, over_at: float) -> dict[str, float]:
    """Return, for each kind, the longest time between two completions while it lasted or soon after.

    After the last completion the time counts while there are orders. Faults that fall together share what
    comes of them.
    """
    longest: dict[str, float] = {}
    for each in happenings:
        before = bisect.bisect_left(moments, each.began_at) - 1
        after = bisect.bisect_left(moments, each.ended_at + AFTERWARDS_SECONDS)
        first = moments[before] if before >= 0 else each.began_at
        last = moments[after] if after < len(moments) else min(each.ended_at + AFTERWARDS_SECONDS, over_at)
        longest[each.kind] = max(longest.get(each.kind, 0.0), _longest(moments, first, last))
    return longest


def _longest(moments: list[float], first: float, last: float) -> float:
    """Return the longest time without a completion between these two moments."""
    between = moments[bisect.bisect_left(moments, first) : bisect.bisect_right(moments, last)]
    return max((after - before for before, after in pairwise([first, *between, last])), default=0.0)


def _is_alone(lock: Happening, evidence: Evidence) -> bool:
    """Tell whether nothing else was wrong while the rows were locked, and in the lease before."""
    others = [
        (each.began_at, each.ended_at) for each in evidence.happenings if each.kind not in _BESIDE_A_LOCK
    ]
    from_ = lock.began_at - evidence.lease_seconds
    return not any(
        began_at <= lock.ended_at and from_ <= ended_at for began_at, ended_at in [*others, *evidence.away]
    )


def breaches(pauses: Pauses) -> list[Breach]:
    """Return the pauses that are past all bounds."""
    return [
        *(
            Breach("progress", None, f"nothing was completed for {seconds:.1f} s around {kind}")
            for kind, seconds in pauses.around.items()
            if seconds > LIMIT_SECONDS
        ),
        *(
            Breach("one stuck row", None, f"nothing was completed for {seconds:.1f} s beside locked orders")
            for seconds in pauses.while_locked
            if seconds > STUCK_SECONDS
        ),
    ]
