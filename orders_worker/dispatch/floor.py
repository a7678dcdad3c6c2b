"""The ticket below which this worker has seen everything taken, so that it need not scan there again.

Without it every claim walks over what is left of all orders claimed before it, while an open snapshot keeps
the database from removing that.
"""

import time
from collections import deque
from collections.abc import Callable

LAG_SECONDS = 0.1
"""How far the floor stays behind: an insert that drew its ticket first may commit a moment later."""

RESCAN_SECONDS = 0.25
RESCAN_SHARE = 0.05
"""A scan from the beginning, for later commits, comes four times a second, so that no order that has waited
half a second is passed; or as often as fits in this share of the time, if it takes long."""


class Floor:
    """Tells where each exchange begins to look, and learns from what it found."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The frontier (first ticket not seen taken) now and at the ends of the two last lags: the
        # smallest of them is at least one lag old.
        self._frontiers: deque[int] = deque([0, 0, 0], maxlen=3)
        self._turned_at = clock()
        self._rescan_at = clock()
        self._rescanning = False
        self._began_at = 0.0

    def begin(self) -> int:
        """Return the ticket from which the exchange that begins now shall look."""
        self._began_at = self._clock()
        self._rescanning = self._began_at >= self._rescan_at
        return 0 if self._rescanning else min(self._frontiers)

    def learn(self, tickets: list[int], *, filled: bool) -> None:
        """Take in the `tickets` of first attempts that it claimed, ascending.

        `filled` says that it claimed all that it asked for. Orders that came back have an index of their
        own and need no floor. A filled exchange says nothing about what lies behind its last ticket, so
        the frontier may move back; one that was not filled has emptied the line.
        """
        now = self._clock()
        if self._rescanning:
            self._rescan_at = now + max(RESCAN_SECONDS, (now - self._began_at) / RESCAN_SHARE)
        if now - self._turned_at >= LAG_SECONDS:
            self._frontiers.append(self._frontiers[-1])
            self._turned_at = now
        if tickets:
            frontier = tickets[-1] + 1
            self._frontiers[-1] = frontier if filled else max(frontier, self._frontiers[-1])
