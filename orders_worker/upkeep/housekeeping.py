"""Housekeeping: the chores that any worker does for all of them, and hearing the wake-ups."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from orders_worker.upkeep.detector import Detected, FailureDetector
from schema import revision
from schema.errors import DatabaseError, StartError
from schema.queue import idempotency, rescue, retries, tally, wake, workers
from schema.queue.due import Due
from schema.reports import triggers
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection, statement_timeout_seconds
from schema.runtime.loop import Loop
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.waker import Waker
from schema.runtime.watchdog import Watchdog

TICK_SECONDS = 1.9
GRACE_SECONDS = 0.05
"""How long after the moment at which a suspected worker counts as dead the next tick comes."""

RETRY_SECONDS = 1.0

_log = logs.Log(__name__)


class Chore(NamedTuple):
    """What is done every `seconds`, 0 for every tick. `work` returns how many orders it moved."""

    name: str
    seconds: float
    work: Callable[[Connection], int]


class Housekeeping:
    """Runs in a thread with a connection of its own, which also receives the wake-ups.

    Calls `on_orders` when there may be something to claim; `worker_id` returns the present id, for the log.
    `watchdog` is beaten after each search for dead workers, `schema` after each check that found a schema
    which fits.
    """

    def __init__(self, url: str, *, on_orders: Callable[[], None], worker_id: Callable[[], str]) -> None:
        self._url = url
        self._on_orders = on_orders
        self._worker_id = worker_id
        self._detector = FailureDetector()
        self._detected = Detected(Due(), counts=False)
        self._patrolled: datetime | None = None
        self._patrol_at = 0.0
        self._warned = False
        self._suspects: list[str] = []
        self._tick_at = 0.0
        self._chores: Sequence[Chore] = (
            Chore("detect", 0, self._detect),
            Chore("sweep", 0, self._sweep),
            Chore("return_due", 0, self._return_due),
            Chore("patrol", 20, self._patrol),
            Chore("fold", 0, self._fold),
            Chore("prune_workers", 600, self._prune_workers),
            Chore("prune_keys", 600, self._prune_keys),
            Chore("check_schema", 60, self._check_schema),
            Chore("check_triggers", 60, self._check_triggers),
        )
        self._due_at = dict.fromkeys((chore.name for chore in self._chores), 0.0)
        self.watchdog = Watchdog()
        self.schema = Watchdog(patience_seconds=float("inf"))
        self._database = Reconnecting(
            self._opened, name="housekeeping", ceiling_seconds=RETRY_SECONDS, watchdog=self.watchdog
        )
        self.loop = Loop(
            "orders-housekeeping",
            self._turn,
            failed=self._failed,
            ended=self._database.close,
            pause=Waker(lambda: self._database.current),
        )

    def _turn(self) -> float:
        logs.bind(worker_id=self._worker_id())
        connection = self._database.connection()
        if time.monotonic() >= self._tick_at:
            self._tick_at = time.monotonic() + self._tick(connection)
        # After the tick: a notification that comes during a statement does not end the pause.
        if connection.notified():
            self._on_orders()
        self._database.succeeded()
        return self._tick_at - time.monotonic()

    def _failed(self, error: Exception) -> float:
        self._detector.blind()
        return self._database.failed(error)

    def _opened(self) -> Connection:
        connection = Connection.open(self._url, name="orders-housekeeping")
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        self._due_at["check_schema"] = 0.0
        if connection.direct:
            wake.listen(connection)
        elif not self._warned:
            self._warned = True
            _warn_of_the_pooler(connection)
        self._on_orders()

    def _tick(self, connection: Connection) -> float:
        """Do every chore that is due once; return after how many seconds to do so again.

        Each chore commits by itself, so that none waits for another or keeps its rows locked, and one
        that the database refuses (for a user's trigger, say) leaves the others alone.
        """
        counts = [self._do(chore, connection) for chore in self._chores if self._is_due(chore)]
        if any(counts):
            self._on_orders()
        if any(count >= rescue.LIMIT for count in counts):
            return 0
        if (seconds := self._detected.next_seconds) is not None:
            return max(seconds, 0) + GRACE_SECONDS
        return TICK_SECONDS

    def _is_due(self, chore: Chore) -> bool:
        """Tell whether it is due; if so, it is next due `chore.seconds` from now."""
        if time.monotonic() < self._due_at[chore.name]:
            return False
        self._due_at[chore.name] = time.monotonic() + chore.seconds
        return True

    def _do(self, chore: Chore, connection: Connection) -> int:
        try:
            return chore.work(connection)
        except DatabaseError as error:
            if connection.closed:
                raise
            _log.error("chore_refused", error=error, chore=chore.name)
            return 0

    def _detect(self, connection: Connection) -> int:
        self._detected = Detected(Due(), counts=False)
        self._detected = self._detector.detect(connection)
        return 0

    def _sweep(self, connection: Connection) -> int:
        moved = 0
        if self._detected.due.sweep:
            moved = rescue.sweep(connection)
            rescue.mark_swept(connection)
        if moved:
            _log.info("orders_rescued", count=moved)
        if self._detected.counts:
            self.watchdog.beat()
        return moved

    def _return_due(self, connection: Connection) -> int:
        return retries.return_due(connection) if self._detected.due.retries else 0

    def _patrol(self, connection: Connection) -> int:
        if self._patrolled is None:
            self._patrol_at = self._due_at["patrol"]
        patrolled = rescue.patrol(connection, after=self._patrolled)
        self._patrolled = patrolled.reached
        # The next page comes at the next tick, the next round so long after the beginning of this one.
        self._due_at["patrol"] = self._patrol_at if patrolled.reached is None else 0.0
        if patrolled.moved:
            _log.info("orders_rescued", count=patrolled.moved)
        return patrolled.moved

    def _fold(self, connection: Connection) -> int:
        # What a full fold leaves can wait for the next tick.
        if self._detected.due.tally:
            tally.fold(connection)
        return 0

    def _prune_workers(self, connection: Connection) -> int:
        workers.prune(connection)
        return 0

    def _prune_keys(self, connection: Connection) -> int:
        if idempotency.prune(connection) == idempotency.LIMIT:
            self._due_at["prune_keys"] = 0.0  # the rest, at the next tick
        return 0

    def _check_schema(self, connection: Connection) -> int:
        try:
            revision.check(connection)
        except StartError as error:
            self.schema.fail(error)
            self._due_at["check_schema"] = 0.0
        else:
            self.schema.beat()
        return 0

    def _check_triggers(self, connection: Connection) -> int:
        """Name triggers and rules that can keep our UPDATEs from taking effect, each once."""
        suspects = triggers.suspects(connection)
        for name in suspects:
            if name not in self._suspects:
                _log.warning("trigger_may_undo_updates", trigger=name)
        self._suspects = suspects
        return 0


def _warn_of_the_pooler(connection: Connection) -> None:
    """Log what does not work through a pooler, and what an administrator has to do instead of us."""
    _log.warning("no_wake_up_behind_a_pooler")
    if not 0 < statement_timeout_seconds(connection) <= 2 * REPLY_SECONDS:
        _log.warning("statement_timeout_unset_behind_a_pooler", wanted_seconds=round(2 * REPLY_SECONDS))
