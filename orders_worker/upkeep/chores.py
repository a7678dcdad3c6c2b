"""The chores that any worker does for all of them, and when each is due."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from orders_worker.upkeep.detector import UNKNOWN, FailureDetector
from schema import revision
from schema.errors import DatabaseError, DatabaseFullError, StartError, StatementRefusedError
from schema.queue import idempotency, rescue, retries, tally, workers
from schema.queue.rescue import Rescued
from schema.reports import triggers
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.watchdog import Watchdog
from schema.states import Status

TICK_SECONDS = 1.9
GRACE_SECONDS = 0.05
"""How long after the moment at which a suspected worker counts as dead the next tick comes."""

_KILLER = "the worker died with its last attempt"

_log = logs.Log(__name__)


@dataclass(slots=True)
class Chore:
    """Something to do every `seconds`, 0 for every tick. `work` returns True to go on at the next tick."""

    name: str
    seconds: float
    work: Callable[[Connection], bool | None]
    due_at: float = 0.0
    more: bool = False

    def do_if_due(self, connection: Connection) -> None:
        """Do it, if it is due. A refusal by the database (for a user's trigger, say) is logged.

        Raises `DatabaseError` when no other chore can be done either.
        """
        if not self.more:
            if time.monotonic() < self.due_at:
                return
            self.due_at = time.monotonic() + self.seconds
        try:
            self.more = bool(self.work(connection))
        except DatabaseError as error:
            if connection.closed or isinstance(error, DatabaseFullError):
                raise
            self.more = False
            _log.error("chore_refused", error=error, chore=self.name)


class Chores:
    """All of them, in the order in which a tick does them. Each commits by itself.

    Calls `on_orders` when orders are back in line. `watchdog` is beaten after each search for dead workers,
    `schema` after each check that found a schema which fits.
    """

    def __init__(self, on_orders: Callable[[], None]) -> None:
        self._on_orders = on_orders
        self._detected = UNKNOWN
        self._patrolled: datetime | None = None
        self._patrol_was_full = False
        self._suspects: list[str] = []
        self._row_security = False
        self.detector = FailureDetector()
        self.watchdog = Watchdog()
        self.schema = Watchdog(patience_seconds=float("inf"))
        self.schema_check = Chore("check_schema", 60, self._check_schema)
        self._chores = (
            Chore("detect", 0, self._detect),
            Chore("sweep", 0, self._sweep),
            Chore("return_due", 0, self._return_due),
            Chore("patrol", 20, self._patrol),
            Chore("fold", 0, self._fold),
            Chore("prune_workers", 600, self._prune_workers),
            Chore("prune_keys", 600, self._prune_keys),
            self.schema_check,
            Chore("check_triggers", 60, self._check_triggers),
        )

    def tick(self, connection: Connection) -> float:
        """Do every chore that is due once; return after how many seconds to do so again.

        That is at once while orders wait for the rest of what was more than one call returns.
        """
        for chore in self._chores:
            chore.do_if_due(connection)
        if self._patrol_was_full or any(chore.more and not chore.seconds for chore in self._chores):
            return 0.0
        if (seconds := self._detected.next_seconds) is not None:
            return max(seconds, 0) + GRACE_SECONDS
        return TICK_SECONDS

    def _detect(self, connection: Connection) -> None:
        self._detected = UNKNOWN
        try:
            self._detected = self.detector.detect(connection)
        except StatementRefusedError as error:
            self.watchdog.fail(error)
            raise

    def _sweep(self, connection: Connection) -> bool:
        rescued: set[Rescued] = set()
        if self._detected.due.sweep:
            rescued = rescue.sweep(connection)
            rescue.mark_swept(connection)
            self._report(rescued)
        if self._detected.counts:
            self.watchdog.beat()
        return len(rescued) >= rescue.LIMIT

    def _return_due(self, connection: Connection) -> bool:
        moved = retries.return_due(connection) if self._detected.due.retries else 0
        if moved:
            self._on_orders()
        return moved >= retries.LIMIT

    def _patrol(self, connection: Connection) -> bool:
        self._patrol_was_full = False
        patrolled = rescue.patrol(connection, after=self._patrolled)
        self._patrolled = patrolled.reached
        self._patrol_was_full = len(patrolled.rescued) >= rescue.PATROL_LIMIT
        self._report(patrolled.rescued)
        return patrolled.reached is not None

    def _report(self, rescued: set[Rescued]) -> None:
        for order_id, attempt, status in rescued:
            _log.info("order_rescued", order_id=order_id, attempt=attempt, status=status)
            if status is Status.FAILED:
                _log.error("order_failed", order_id=order_id, attempt=attempt, reason=_KILLER)
        if rescued:
            self._on_orders()

    def _fold(self, connection: Connection) -> None:
        # What a full fold leaves can wait for the next tick.
        if self._detected.due.tally:
            tally.fold(connection)

    def _prune_workers(self, connection: Connection) -> None:
        workers.prune(connection)

    def _prune_keys(self, connection: Connection) -> bool:
        return idempotency.prune(connection) == idempotency.LIMIT

    def _check_schema(self, connection: Connection) -> bool:
        try:
            revision.check(connection)
        except StartError as error:
            self.schema.fail(error)
            return True
        self.schema.beat()
        return False

    def _check_triggers(self, connection: Connection) -> None:
        """Name what can keep our UPDATEs from taking effect, or orders from our sight, each once."""
        suspects = triggers.suspects(connection)
        for name in suspects:
            if name not in self._suspects:
                _log.warning("trigger_may_undo_updates", trigger=name)
        self._suspects = suspects
        row_security = triggers.row_security(connection)
        if row_security and not self._row_security:
            _log.warning("row_security_may_hide_orders")
        self._row_security = row_security
