"""Housekeeping: what any worker does for all: rescue, return of due retries; and its own wake-up."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

import psycopg

from orders_worker.bell import Bell
from orders_worker.pulse import Pulse
from schema import idempotency, logs, rescue, retries, revision, wake, workers
from schema.connection import Connection
from schema.errors import StartError

TICK_SECONDS = 1.25
PRUNE_SECONDS = 600.0
RETRY_SECONDS = 1.0
SCHEMA_SECONDS = 60.0
STALL_SECONDS = 4.0
"""Two looks for the dead that are further apart than this tell of a server or pooler that stood still: when
it goes on, the look may come before the beats that were held up with it."""

_log = logs.Log(__name__)


class Housekeeping:
    """Runs in a thread with a connection of its own, which also receives the wake-ups.

    `on_orders` is called when there may be something to claim. `pulse` beats with each tick, `schema`
    with each look that found a schema which fits.
    """

    def __init__(self, *, connect: Callable[[], Connection], on_orders: Callable[[], None]) -> None:
        self._connect = connect
        self._on_orders = on_orders
        self._bell = Bell()
        self._stopped = False
        self._connection: Connection | None = None
        self._started_at = time.monotonic()
        self._looked_at = time.monotonic()
        self._warned = False
        self._reconnected_at: float | None = None
        self._patrolled: datetime | None = None
        self._prune_workers_at = 0.0
        self._prune_keys_at = 0.0
        self._check_schema_at = 0.0
        self.pulse = Pulse()
        self.schema = Pulse(patience_seconds=float("inf"))
        self._thread = threading.Thread(target=self._run, name="orders-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped = True
        self._bell.ring()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        tick_at = 0.0
        while not self._stopped:
            try:
                connection = self._connected()
                if time.monotonic() >= tick_at:
                    tick_at = time.monotonic() + (0 if self._tick(connection) else TICK_SECONDS)
                    self.pulse.beat()
                self._bell.wait(tick_at - time.monotonic(), connection=connection)
                self._hear(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next tick tries again
                self._disconnect(error)
                self._bell.wait(RETRY_SECONDS, connection=None)
        if self._connection is not None:
            self._connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
            self._check_schema_at = 0.0
            if self._connection.direct:
                wake.listen(self._connection)
            elif not self._warned:
                self._warned = True
                _log.warning("no_wake_up_behind_a_pooler")
            self._on_orders()
        return self._connection

    def _disconnect(self, error: Exception) -> None:
        self.pulse.miss(error)
        if self._connection is not None:
            _log.warning("housekeeping_lost", error=error)
            self._connection.close()
            self._connection = None
        # From now on every worker gets a whole lease to be heard again before it is judged.
        self._reconnected_at = time.monotonic()

    def _hear(self, connection: Connection) -> None:
        if any(True for _ in connection.notifies(timeout=0)):
            self._on_orders()

    def _tick(self, connection: Connection) -> bool:
        """Do every chore once; return whether there is more to do at once.

        Each chore commits by itself, so that none waits for another or keeps its rows locked, and one
        that the database refuses (a user's trigger, say) leaves the others alone.
        """
        moved = 0
        full = False
        for chore in (
            self._declare_dead,
            self._sweep,
            self._return_due,
            self._patrol,
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
        return full

    def _declare_dead(self, connection: Connection) -> int:
        for worker_id in self._look(connection):
            _log.warning("worker_declared_dead", dead_worker_id=worker_id)
        return 0

    def _look(self, connection: Connection) -> list[str]:
        """Declare workers dead, unless it took so long that the living could not be heard either."""
        with connection.transaction() as look:
            dead = rescue.declare_dead(
                connection,
                watched_seconds=_seconds_since(self._reconnected_at),
                running_seconds=_seconds_since(self._started_at),
            )
            looked_at, self._looked_at = self._looked_at, time.monotonic()
            if self._looked_at - looked_at < STALL_SECONDS:
                return dead
            self._reconnected_at = self._looked_at
            raise psycopg.Rollback(look)
        return []

    def _sweep(self, connection: Connection) -> int:
        moved = rescue.sweep(connection)
        rescue.mark_swept(connection)
        if moved:
            _log.info("orders_rescued", count=moved)
        return moved

    def _return_due(self, connection: Connection) -> int:
        return retries.return_due(connection)

    def _patrol(self, connection: Connection) -> int:
        patrolled = rescue.patrol(connection, after=self._patrolled)
        self._patrolled = patrolled.reached
        if patrolled.moved:
            _log.info("orders_rescued", count=patrolled.moved)
        return patrolled.moved

    def _prune_workers(self, connection: Connection) -> int:
        if time.monotonic() >= self._prune_workers_at:
            workers.prune(connection)
            self._prune_workers_at = time.monotonic() + PRUNE_SECONDS
        return 0

    def _prune_keys(self, connection: Connection) -> int:
        # After a full prune there is more to do, but nobody waits for it: the next tick is soon enough.
        if time.monotonic() >= self._prune_keys_at and idempotency.prune(connection) < idempotency.LIMIT:
            self._prune_keys_at = time.monotonic() + PRUNE_SECONDS
        return 0

    def _check_schema(self, connection: Connection) -> int:
        if time.monotonic() >= self._check_schema_at:
            try:
                revision.check(connection)
            except StartError as error:
                self.schema.miss(error)  # and look again at every tick
            else:
                self.schema.beat()
                self._check_schema_at = time.monotonic() + SCHEMA_SECONDS
        return 0


def _seconds_since(moment: float | None) -> float:
    """Return the seconds since `moment`; for ever if there was none."""
    return float("inf") if moment is None else time.monotonic() - moment
