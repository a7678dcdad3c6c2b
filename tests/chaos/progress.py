"""How long nothing was completed after each kind of fault."""

import bisect
from itertools import pairwise
from typing import Any

import psycopg

from tests.chaos.evidence import Breach, Evidence

LIMIT_SECONDS = 30.0
AFTERWARDS_SECONDS = 10.0

_COMPLETIONS = """
SELECT extract(epoch FROM finished_at)::float8
FROM orders
WHERE status = 'completed'
ORDER BY finished_at
"""


def longest_pauses(connection: psycopg.Connection[Any], evidence: Evidence) -> dict[str, float]:
    """Return, for each kind of fault, the longest time between two completions while it lasted or soon after.

    Faults that fall together share what comes of them.
    """
    moments = [moment for (moment,) in connection.execute(_COMPLETIONS)]
    longest: dict[str, float] = {}
    for each in evidence.happenings:
        first = max(bisect.bisect_left(moments, each.began_at) - 1, 0)
        last = bisect.bisect_left(moments, each.ended_at + AFTERWARDS_SECONDS) + 1
        near = moments[first:last]
        pause = max((after - before for before, after in pairwise(near)), default=0.0)
        longest[each.kind] = max(longest.get(each.kind, 0.0), pause)
    return longest


def breaches(pauses: dict[str, float]) -> list[Breach]:
    """Return the pauses that are past all bounds."""
    return [
        Breach("progress", None, f"nothing was completed for {seconds:.1f} s around {kind}")
        for kind, seconds in pauses.items()
        if seconds > LIMIT_SECONDS
    ]
