"""What a turn does: it hands in what has ended, and takes out what can start now.

An attempt's states in memory, from the exchange that brought its claim to the one that writes its end:

    exchange ──▶ running ──▶ ended ──▶ written      the database has its end
                    │          └─────▶ lost         the claim is somebody else's
                    └──▶ abandoned ──▶ ended        timed out, handed back, or the worker is dead

`Claims` holds it until it is written or lost, `Finished` while it is ended, a slot while it runs.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime

from orders_worker.attempt.attempt import Attempt, AttemptSettings, error_text
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.finished import Finished
from orders_worker.dispatch.floor import Floor
from orders_worker.dispatch.slots import Slots
from schema.errors import DatabaseError, StatementRefusedError
from schema.order import Claim, Fence
from schema.queue import exchange, workers
from schema.queue.exchange import Exchanged
from schema.queue.workers import Registration
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.watchdog import Watchdog
from schema.states import Outcome

_log = logs.Log(__name__)


class Exchanger:
    """Does the dispatcher's turns with the database, in the dispatcher's thread.

    A claim leaves `claims` only when the database has its end or says that it is lost: what has ended while
    the database is away waits in `finished`. `register` enters a new worker when this one was declared dead.
    `claiming` is overdue when orders are in line and slots are free, but no claim takes hold.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        finished: Finished,
        slots: Slots,
        settings: AttemptSettings,
        database: Reconnecting,
        register: Callable[[Connection], Registration],
    ) -> None:
        self._claims = claims
        self._finished = finished
        self._slots = slots
        self._settings = settings
        self._database = database
        self._register = register
        self._floor = Floor()
        self._dead_id = ""
        self._recover_at: list[float] = []
        self._was_refused = False
        self.claiming = Watchdog(resting=True)

    @property
    def is_dead(self) -> bool:
        """Whether the database has declared this worker dead: the next turn begins anew under another id."""
        return self._dead_id == self._claims.worker_id

    def declare_dead(self, worker_id: str) -> None:
        """Record from any thread that the database has declared `worker_id` dead."""
        self._dead_id = worker_id

    def turn(self, free: Callable[[], int]) -> bool:
        """Do one turn; return whether another one may find more to claim. `free` counts slots to fill.

        On a failure everything is kept for the next turn.
        """
        try:
            connection = self._database.connection()
            if self.is_dead:
                self._begin_anew(connection)
            if self._recover_at and time.monotonic() >= self._recover_at[0]:
                self._recover_claims(connection, free=free())
            if self._was_refused:
                self._write_singly(connection)
            else:
                self._finished.write(connection, self._finished.endings)
            filled = self._exchange(connection, finished=self._finished.completed, free=free())
        except DatabaseError as error:
            self._fail(error)
            filled = True
        else:
            self._was_refused = False
            self._database.succeeded()
            self._database.watchdog.beat()
        self._finished.report_unwritten()
        return filled

    def leave(self) -> None:
        """Sign off, if the database is there. Other workers rescue what is still held."""
        try:
            workers.leave(self._database.connection(), self._claims.worker_id)
        except DatabaseError as error:
            _log.warning("left_without_a_word", error=error)
        self._database.close()

    def _fail(self, error: DatabaseError) -> None:
        if isinstance(error, StatementRefusedError):
            self._was_refused = True
            _log.error("statement_refused", error=error)
        self._database.failed(error)
        # The lost answer may have brought claims. Recover them when the database is back, and once more when
        # the statement can't commit any later.
        self._recover_at = [0.0, time.monotonic() + 2 * REPLY_SECONDS]

    def _begin_anew(self, connection: Connection) -> None:
        """Go on under a new id. The old one was declared dead: all that it held is somebody else's."""
        old_id = self._claims.worker_id
        dropped = self._claims.renew(self._register(connection))
        self._finished.forget()
        for attempt in dropped:
            attempt.abandon()
        _log.warning("worker_was_declared_dead", old_worker_id=old_id, dropped=len(dropped))

    def _recover_claims(self, connection: Connection, *, free: int) -> None:
        """Start what an exchange claimed whose answer was lost; release what no slot is free for."""
        held = self._claims.holding()
        since = self._claims.since
        claims = exchange.recover_claims(connection, held.worker_id, held=held.order_ids, since=since)
        self._recover_at.pop(0)
        self._start(claims[:free], at=since)
        for attempt in self._take(claims[free:], at=since):
            self._finished.end(attempt.ending(Outcome.RELEASED))
        if claims:
            _log.warning("claims_recovered", count=len(claims))

    def _write_singly(self, connection: Connection) -> None:
        """Find the row that the database refuses, and write the others.

        A refused completion becomes a failed attempt. A refused ending is kept for a later try.
        """
        for fence in self._finished.completed:
            try:
                self._exchange(connection, finished=[fence], free=0)
            except StatementRefusedError as error:
                self._finished.end(
                    self._claims[fence].ending(Outcome.RAISED, error_text(error.__cause__ or error))
                )
        for ending in self._finished.endings:
            try:
                self._finished.write(connection, [ending])
            except StatementRefusedError as error:
                _log.error("ending_refused", error=error, order_id=ending.fence.order_id)

    def _exchange(self, connection: Connection, *, finished: list[Fence], free: int) -> bool:
        """Hand in `finished`, start what was claimed; return whether every free slot was filled."""
        exchanged = exchange.exchange(
            connection,
            self._claims.worker_id,
            finished=finished,
            free=free,
            floor=self._floor.begin(),
            since=self._claims.since,
            max_attempts=self._settings.max_attempts,
        )
        completed = self._finished.settle(finished, exchanged)
        filled = len(exchanged.claimed) == free
        self.claiming.expect(when=exchanged.suppressed and not exchanged.claimed)
        if not exchanged.alive:
            self._dead_id = self._claims.worker_id
        tickets = [claim.seq for claim in exchanged.claimed if claim.attempt == 1]
        self._floor.learn(tickets, filled=filled)
        # While claims may still have to be recovered, `since` stays at the last answered exchange.
        self._start(exchanged.claimed, at=self._claims.since if self._recover_at else exchanged.at)
        _report(exchanged, completed=completed)
        return filled and free > 0

    def _start(self, claims: Iterable[Claim], *, at: datetime) -> None:
        for attempt in self._take(claims, at=at):
            self._slots.start(attempt)

    def _take(self, claims: Iterable[Claim], *, at: datetime) -> list[Attempt]:
        worker_id, settings = self._claims.worker_id, self._settings
        attempts = [Attempt(claim, worker_id=worker_id, settings=settings) for claim in claims]
        self._claims.take(attempts, at=at)
        return attempts


def _report(exchanged: Exchanged, *, completed: int) -> None:
    for fence in exchanged.lost:
        _log.warning("claim_lost", order_id=fence.order_id, attempt=fence.attempt)
    if completed or exchanged.claimed:
        _log.info("exchanged", completed=completed, claimed=len(exchanged.claimed))
