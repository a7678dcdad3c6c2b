"""Housekeeping: the chores that any worker does for all, again and again; and hearing the wake-ups."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

import psycopg

from orders_worker.upkeep.detector import Detected, FailureDetector
from schema import revision
from schema.errors import StartError
from schema.queue import idempotency, rescue, retries, tally, wake, workers
from schema.queue.due import Due
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection, statement_timeout_seconds
from schema.runtime.waker import Waker
from schema.runtime.watchdog import Watchdog

TICK_SECONDS = 1.9
GRACE_SECONDS = 0.05
"""How long after the moment from which a suspected worker counts as dead to look again."""

PATROL_SECONDS = 20.0
"""How long the patrol rests at least from the beginning of one round to that of the next."""

PRUNE_SECONDS = 600.0
RETRY_SECONDS = 1.0
SCHEMA_SECONDS = 60.0

_log = logs.Log(__name__)


class Every:
    """Comes due at once, and then after every `seconds`, whatever came of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = 0.0

    def due(self) -> bool:
        """Tell whether it is due; if so, the next time is `seconds` from now."""
        if time.monotonic() < self._at:
            return False
        self._at = time.monotonic() + self._seconds
        return True

    def again(self) -> None:
        """Have it due at the next tick."""
        self._at = 0.0


class Housekeeping:
    """Runs in a thread with a connection of its own, which also receives the wake-ups.

    Calls `on_orders` when there may be something to claim; `worker_id` returns the present id, for the log.
    `watchdog` is beaten after each search for dead workers, `schema` after each check that found a schema
    which fits.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        on_orders: Callable[[], None],
        worker_id: Callable[[], str],
    ) -> None:
        self._connect = connect
        self._on_orders = on_orders
        self._worker_id = worker_id
        self._waker = Waker()
        self._stopped = False
        self._connection: Connection | None = None
        self._detector = FailureDetector()
        self._detected = Detected(Due(), counts=False)
        self._warned = False
        self._patrolled: datetime | None = None
        self._patrol_now = Every(PATROL_SECONDS)
        self._prune_workers_now = Every(PRUNE_SECONDS)
        self._prune_keys_now = Every(PRUNE_SECONDS)
        self._check_schema_now = Every(SCHEMA_SECONDS)
        self.watchdog = Watchdog()
        self.schema = Watchdog(patience_seconds=float("inf"))
        self._thread = threading.Thread(target=self._run, name="orders-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped = True
        self._waker.wake()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        tick_at = 0.0
        while not self._stopped:
            logs.bind(worker_id=self._worker_id())
            try:
                connection = self._connected()
                if time.monotonic() >= tick_at:
                    tick_at = time.monotonic() + self._tick(connection)
                self._waker.wait(tick_at - time.monotonic(), connection=connection)
                self._hear(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next tick tries again
                self._disconnect(error)
                self._waker.wait(RETRY_SECONDS, connection=None)
        if self._connection is not None:
            self._connection.close()
        self._waker.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._check_schema_now.again()
            if self._connection.direct:
                wake.listen(self._connection)
            elif not self._warned:
                self._warned = True
                _warn_of_the_pooler(self._connection)
            self._on_orders()
        return self._connection

    def _disconnect(self, error: Exception) -> None:
        self.watchdog.fail(error)
        self._detector.blind()
        if self._connection is not None:
            _log.warning("housekeeping_lost", error=error)
            self._connection.close()
            self._connection = None

    def _hear(self, connection: Connection) -> None:
        if any(True for _ in connection.notifies(timeout=0)):
            self._on_orders()

    def _tick(self, connection: Connection) -> float:
        """Do every chore that is due once; return after how many seconds to do so again.

        Each chore commits by itself, so that none waits for another or keeps its rows locked, and one
        that the database refuses (a user's trigger, say) leaves the others alone.
        """
        moved = 0
        full = False
        for chore in (
            self._detect,
            self._sweep,
            self._return_due,
            self._patrol,
            self._fold,
            self._prune_workers,
            self._prune_keys,
            self._check_schema,
        ):
            try:
                count = chore(connection)
            except psycopg.DatabaseError as error:
                if connection.closed:
                    raise
                _log.error("chore_refused", error=error, chore=chore.__name__.strip("_"))
            else:
                moved += count
                full = full or count >= rescue.LIMIT
        if moved:
            self._on_orders()
        if full:
            return 0
        if (seconds := self._detected.next_seconds) is not None:
            return max(seconds, 0) + GRACE_SECONDS
        return TICK_SECONDS

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
        if self._patrolled is None and not self._patrol_now.due():
            return 0
        patrolled = rescue.patrol(connection, after=self._patrolled)
        self._patrolled = patrolled.reached
        if patrolled.moved:
            _log.info("orders_rescued", count=patrolled.moved)
        return patrolled.moved

    def _fold(self, connection: Connection) -> int:
        # What a full fold leaves has time until the next tick: nobody waits for it.
        if self._detected.due.tally:
            tally.fold(connection)
        return 0

    def _prune_workers(self, connection: Connection) -> int:
        if self._prune_workers_now.due():
            workers.prune(connection)
        return 0

    def _prune_keys(self, connection: Connection) -> int:
        # After a full prune there is more to do, but nobody waits for it: the next tick is soon enough.
        if self._prune_keys_now.due() and idempotency.prune(connection) == idempotency.LIMIT:
            self._prune_keys_now.again()
        return 0

    def _check_schema(self, connection: Connection) -> int:
        if self._check_schema_now.due():
            try:
                revision.check(connection)
            except StartError as error:
                self.schema.fail(error)
                self._check_schema_now.again()
            else:
                self.schema.beat()
        return 0


def _warn_of_the_pooler(connection: Connection) -> None:
    """Tell what does not work through a pooler, and what an administrator has to do instead of us."""
    _log.warning("no_wake_up_behind_a_pooler")
    if not 0 < statement_timeout_seconds(connection) <= 2 * REPLY_SECONDS:
        _log.warning("statement_timeout_unset_behind_a_pooler", wanted_seconds=round(2 * REPLY_SECONDS))
