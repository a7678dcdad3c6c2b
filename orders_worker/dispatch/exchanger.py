"""What a turn does: it hands in what has ended, and takes out what can start now.

An attempt's states in memory, from the exchange that brought its claim to the one that writes its end:

    exchange ──▶ running ──▶ ended ──▶ written      the database has its end
                    │          └─────▶ lost         the claim is somebody else's
                    └──▶ abandoned ──▶ ended        timed out, handed back, or the worker is dead

`Claims` holds it until it is written or lost, `Finished` while it is ended, a slot while it runs.
"""

import functools
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from orders_worker.attempt.attempt import Attempt, AttemptSettings
from orders_worker.attempt.outcome import error_text
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.finished import Finished
from orders_worker.dispatch.floor import Floor
from orders_worker.dispatch.slots import Slots
from schema.errors import DatabaseError, StatementRefusedError
from schema.order import Claim, Fence
from schema.queue import exchange, workers
from schema.queue.workers import Registration
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.watchdog import Watchdog
from schema.states import Outcome

RETRY_SECONDS = 2.0
"""The longest pause between two tries to connect."""

_log = logs.Log(__name__)


class Exchanger:
    """Does the dispatcher's turns with the database, in the dispatcher's thread.

    A claim leaves `claims` only when the database has its end or says that it is lost: what has ended while
    the database is away waits in `finished`. `register` enters a new worker when this one was declared dead.
    `watchdog` is beaten by each turn that the database answers; `claiming` is overdue when orders are in line
    and slots are free, but no claim takes hold.
    """

    def __init__(
        self,
        claims: Claims,
        slots: Slots,
        *,
        url: str,
        settings: AttemptSettings,
        register: Callable[[Connection], Registration],
    ) -> None:
        self.claims = claims
        self.finished = Finished(claims)
        self.slots = slots
        connect = functools.partial(Connection.open, url, name="orders-dispatcher")
        self.database = Reconnecting(connect, name="dispatcher", ceiling_seconds=RETRY_SECONDS)
        self.watchdog = Watchdog()
        self.claiming = Watchdog(resting=True)
        self._settings = settings
        self._register = register
        self._floor = Floor()
        self._recover_at: list[float] = []
        self._was_refused = False
        self._alone_waits = True

    def turn(self, free: Callable[[], int]) -> bool:
        """Do one turn; return whether another one may find more to claim. `free` counts slots to fill.

        On a failure everything is kept for the next turn.
        """
        self.watchdog.expect(when=True)
        try:
            connection = self.database.connection()
            if self.claims.dead:
                self._begin_anew(connection)
            if self._recover_at and time.monotonic() >= self._recover_at[0]:
                self._recover_claims(connection, free)
            if self._was_refused:
                self._write_singly(connection)
            else:
                self.finished.write(connection, self.finished.endings)
            filled = self._exchange(connection, finished=self.finished.completed, free=free())
        except DatabaseError as error:
            self._fail(error)
            filled = True
        else:
            self._was_refused = False
            self.database.succeeded()
            self.watchdog.beat()
        self.finished.report_unwritten()
        return filled

    def leave(self) -> None:
        """Sign off, if the database is there. Other workers rescue what is still held."""
        try:
            workers.leave(self.database.connection(), self.claims.worker_id)
        except DatabaseError as error:
            _log.warning("left_without_a_word", error=error)
        self.database.close()

    def _fail(self, error: DatabaseError) -> None:
        if isinstance(error, StatementRefusedError):
            self._was_refused = True
            _log.error("statement_refused", error=error)
        self.watchdog.fail(error)
        self.database.failed(error)
        # The lost answer may have brought claims. Recover them when the database is back, and once more when
        # the statement can't commit any later.
        self._recover_at = [0.0, time.monotonic() + 2 * REPLY_SECONDS]

    def _begin_anew(self, connection: Connection) -> None:
        """Go on under a new id. The old one was declared dead: all that it held is somebody else's."""
        old_id = self.claims.worker_id
        dropped = self.claims.renew(self._register(connection))
        self.finished.forget()
        for attempt in dropped:
            attempt.abandon()
        _log.warning("worker_was_declared_dead", old_worker_id=old_id, dropped=len(dropped))

    def _recover_claims(self, connection: Connection, free: Callable[[], int]) -> None:
        """Start what an exchange claimed whose answer was lost; release what there is no room for."""
        held = self.claims.holding()
        since = self.claims.since
        claims = exchange.recover_claims(connection, held.worker_id, held=held.order_ids, since=since)
        self._recover_at.pop(0)
        for attempt in self._take(claims, at=since):
            if free() > 0 and self.slots.may_start(attempt.claim):
                self.slots.start(attempt)
            else:
                self.finished.end(attempt.ending(Outcome.RELEASED))
        if claims:
            _log.warning("claims_recovered", count=len(claims))

    def _write_singly(self, connection: Connection) -> None:
        """Find the row that the database refuses, and write the others.

        A refused completion becomes a failed attempt. A refused ending is kept for a later try.
        """
        for fence in self.finished.completed:
            try:
                self._exchange(connection, finished=[fence], free=0)
            except StatementRefusedError as error:
                reason = error_text(error.__cause__ or error)
                self.finished.end(self.claims[fence].ending(Outcome.RAISED, reason))
        for ending in self.finished.endings:
            try:
                self.finished.write(connection, [ending])
            except StatementRefusedError as error:
                _log.error("ending_refused", error=error, order_id=ending.fence.order_id)

    def _exchange(self, connection: Connection, *, finished: list[Fence], free: int) -> bool:
        """Hand in `finished`, start what was claimed; return whether another exchange may claim more."""
        exchanged = exchange.exchange(
            connection,
            self.claims.worker_id,
            finished=finished,
            free=free,
            idle=not self.slots.running if self._alone_waits else None,
            floor=self._floor.begin(),
            since=self.claims.since,
            max_attempts=self._settings.max_attempts,
        )
        completed = self.finished.record(finished, exchanged)
        filled = len(exchanged.claimed) == free
        was_passed = exchanged.alone_waits and not self._alone_waits
        self._alone_waits = exchanged.alone_waits
        self.claiming.expect(when=exchanged.suppressed and not exchanged.claimed)
        if not exchanged.alive:
            self.claims.declare_dead(self.claims.worker_id)
        tickets = [claim.seq for claim in exchanged.claimed if claim.attempt == 1]
        self._floor.learn(tickets, filled=filled)
        # While claims may still have to be recovered, `since` stays at the last answered exchange.
        at = self.claims.since if self._recover_at else exchanged.at
        for attempt in self._take(exchanged.claimed, at=at):
            self.slots.start(attempt)
        if completed or exchanged.claimed:
            _log.info("exchanged", completed=completed, claimed=len(exchanged.claimed))
        return (filled or was_passed) and free > 0

    def _take(self, claims: Iterable[Claim], *, at: datetime) -> list[Attempt]:
        worker_id, settings = self.claims.worker_id, self._settings
        attempts = [Attempt(claim, worker_id=worker_id, settings=settings) for claim in claims]
        self.claims.take(attempts, at=at)
        return attempts
