"""The lookout: looks for dead workers, and judges nobody while the living could not be heard either."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from schema.queue import due, rescue
from schema.queue.due import Due
from schema.runtime import logs
from schema.runtime.connection import Connection

STALL_SECONDS = 4.0
"""Two looks that are further apart than this tell of a server or pooler that stood still: when it goes on,
the look may come before the beats that were held up with it."""

_log = logs.Log(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found to do, and whether it counts as one for the dead.

    `next_seconds` is after how long a worker that is suspected will be dead, None if nobody is suspected.
    """

    due: Due
    counts: bool
    next_seconds: float | None = None


class Lookout:
    """Knows how long this process has been able to see the server without a break."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = clock()
        self._looked_at = clock()
        self._blind_until: float | None = None

    def blind(self) -> None:
        """Take note that nothing could be seen until now: everybody gets a whole lease to be heard again."""
        self._blind_until = self._clock()

    def look(self, connection: Connection) -> Look:
        """See what there is to do, and declare the dead dead.

        It does not count, and nobody is declared, if the look before it is `STALL_SECONDS` old.
        """
        with connection.transaction() as look:
            todo = _due(connection)
            declared = rescue.declare_dead(
                connection,
                watched_seconds=self._seconds_since(self._blind_until),
                running_seconds=self._seconds_since(self._began_at),
            )
            looked_at, self._looked_at = self._looked_at, self._clock()
            gap = self._looked_at - looked_at
            if gap >= STALL_SECONDS:
                raise psycopg.Rollback(look)
        if gap >= STALL_SECONDS:
            self.blind()
            _log.warning("look_for_the_dead_discarded", seconds=round(gap, 1))
            return Look(todo, counts=False)
        for worker_id in declared.dead:
            _log.warning("worker_declared_dead", dead_worker_id=worker_id)
        todo = todo._replace(sweep=todo.sweep or bool(declared.dead))
        return Look(todo, counts=True, next_seconds=declared.next_seconds)

    def _seconds_since(self, moment: float | None) -> float:
        """Return the seconds since `moment`; for ever if there was none."""
        return float("inf") if moment is None else self._clock() - moment


def _due(connection: Connection) -> Due:
    """Ask what there is to do, but look for the dead also if that can't be told: then it is everything."""
    try:
        with connection.transaction():
            return due.due(connection)
    except psycopg.DatabaseError as error:
        if connection.closed:
            raise
        _log.error("chores_untold", error=error)
        return Due()
