"""What has ended and is not in the database yet. It is handed in until it is written or lost."""

import math
import time
from collections.abc import Callable, Iterable

from orders_worker.dispatch.claims import Claims
from schema.order import Fence
from schema.queue import endings
from schema.queue.endings import Ending
from schema.queue.exchange import Exchanged
from schema.runtime import logs
from schema.runtime.connection import Connection

LOGGED_ERROR_LENGTH = 200

UNWRITTEN_SECONDS = 60.0
"""How long an end may stay unwritten, for a lock, a trigger or an outage, before an ERROR says so."""

REPORTED = -math.inf

_log = logs.Log(__name__)


class Finished:
    """The ended attempts of `claims`, which they leave from here.

    `fresh` tells that some were never handed in. The others are those whose rows are locked, or stay as they
    were because of a user's trigger or rule; they wait for the next poll.
    """

    def __init__(self, claims: Claims, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._claims = claims
        self._clock = clock
        # In the order of their ends, so that the oldest come first; REPORTED once the log has named it.
        self._ended_at: dict[Fence, float] = {}
        self._endings: dict[Fence, Ending] = {}
        self.fresh = False

    def __len__(self) -> int:
        return len(self._ended_at)

    @property
    def completed(self) -> list[Fence]:
        """The completions, for the next exchange."""
        if not self._endings:
            return list(self._ended_at)
        return [fence for fence in self._ended_at if fence not in self._endings]

    @property
    def endings(self) -> list[Ending]:
        """The other endings, for `write`."""
        return list(self._endings.values())

    def complete(self, fence: Fence) -> None:
        """Add a completion."""
        self._ended_at[fence] = self._clock()
        self.fresh = True

    def end(self, ending: Ending) -> None:
        """Add another ending, or put it in the place of a completion."""
        self._ended_at.setdefault(ending.fence, self._clock())
        self._endings[ending.fence] = ending
        self.fresh = True

    def forget(self) -> None:
        """Drop everything: the claims are somebody else's."""
        self._ended_at.clear()
        self._endings.clear()

    def record(self, finished: Iterable[Fence], exchanged: Exchanged) -> int:
        """Record what an exchange did with completions that it was given; return how many it wrote."""
        for fence in exchanged.lost:
            _report_lost(fence)
        over = [fence for fence in finished if fence not in exchanged.busy]
        self._drop(over)
        self.fresh = False
        return len(over) - len(exchanged.lost)

    def write(self, connection: Connection, ended: list[Ending]) -> None:
        """Write these endings. Those whose rows are busy, or that the database refuses, stay."""
        if not ended:
            return
        found = endings.end(connection, self._claims.worker_id, endings=ended)
        for ending in ended:
            if ending.fence in found.busy:
                continue
            if ending.fence in found.lost:
                _report_lost(ending.fence)
            else:
                self._report(ending, failed=ending.fence in found.failed)
            del self._endings[ending.fence]
            self._drop([ending.fence])

    def report_unwritten(self) -> None:
        """Log, once each, the ends that could not be written for `UNWRITTEN_SECONDS`."""
        limit = self._clock() - UNWRITTEN_SECONDS
        for fence, ended_at in self._ended_at.items():
            if ended_at > limit:
                return
            if ended_at > REPORTED:
                self._ended_at[fence] = REPORTED
                _log.error("end_unwritten", order_id=fence.order_id, attempt=fence.attempt)

    def _drop(self, fences: list[Fence]) -> None:
        for fence in fences:
            self._ended_at.pop(fence, None)
        self._claims.drop(fences)

    def _report(self, ending: Ending, *, failed: bool) -> None:
        order_id, attempt = ending.fence
        reason = (ending.error or "").partition("\n")[0][:LOGGED_ERROR_LENGTH] or None
        limit = self._claims[ending.fence].claim.attempt_limit
        _log.info(
            f"attempt_{ending.outcome}", order_id=order_id, attempt=attempt, attempt_limit=limit, error=reason
        )
        if failed:
            _log.error("order_failed", order_id=order_id, attempt=attempt, reason=reason)


def _report_lost(fence: Fence) -> None:
    _log.warning("claim_lost", order_id=fence.order_id, attempt=fence.attempt)
