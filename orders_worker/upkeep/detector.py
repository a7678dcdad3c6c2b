"""The failure detector: declares silent workers dead, but only while it could have heard the living."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from schema.errors import DatabaseError, OrdersError
from schema.queue import due, rescue
from schema.queue.due import Due
from schema.queue.rescue import Declared
from schema.runtime import logs
from schema.runtime.connection import Connection

STALL_SECONDS = 4.0
"""Two runs further apart than this show that the server or a pooler stood still. The first run after that
may come before the heartbeats that were held up with it."""

_log = logs.Log(__name__)


@dataclass(frozen=True, slots=True)
class Detected:
    """The chores that are `due`, and whether this run `counts`: one after a stall declares nobody dead.

    `next_seconds` says in how many seconds the next suspected worker will be dead, None without a suspect.
    """

    due: Due
    counts: bool
    next_seconds: float | None = None


UNKNOWN = Detected(Due.everything(), counts=False)
"""What a run that came to nothing leaves: do every chore, and take nobody for dead."""


class _StoodStillError(OrdersError):
    """The server stood still for so many seconds: the transaction rolls back."""


class FailureDetector:
    """Knows how long this process has been able to see the server without a break."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = self._ran_at = clock()
        self._blind_until = -math.inf

    def blind(self) -> None:
        """Record that nothing could be seen until now: every worker gets a whole lease to be heard again."""
        self._blind_until = self._clock()

    def detect(self, connection: Connection) -> Detected:
        """Ask which chores are due, and declare dead workers dead. Commits, unless the server stood still."""
        try:
            with connection.transaction():
                chores = _due(connection)
                declared = self._declare_dead(connection)
        except _StoodStillError as stall:
            self.blind()
            _log.warning("detection_discarded", seconds=stall.args[0])
            return UNKNOWN
        for worker_id in declared.dead:
            _log.warning("worker_declared_dead", dead_worker_id=worker_id)
            chores = chores._replace(sweep=True)
        return Detected(chores, counts=True, next_seconds=declared.next_seconds)

    def _declare_dead(self, connection: Connection) -> Declared:
        """Declare the dead dead; raise `_StoodStillError` when the last run is too long ago for that."""
        declared = rescue.declare_dead(
            connection,
            watched_seconds=self._clock() - self._blind_until,
            running_seconds=self._clock() - self._began_at,
        )
        ran_at, self._ran_at = self._ran_at, self._clock()
        if (seconds := self._ran_at - ran_at) >= STALL_SECONDS:
            raise _StoodStillError(round(seconds, 1))
        return declared


def _due(connection: Connection) -> Due:
    """Ask which chores are due. When that fails, all are: dead workers must be found all the same."""
    try:
        with connection.transaction():
            return due.due(connection)
    except DatabaseError as error:
        if connection.closed:
            raise
        _log.error("chores_unknown", error=error)
        return Due.everything()
