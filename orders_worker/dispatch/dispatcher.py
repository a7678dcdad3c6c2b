"""The dispatcher: hands finished orders in, takes new ones out, and keeps every slot busy.

It is the worker's main thread. Its one blocking call besides the exchange itself is reading the
mailbox, where results, wake-ups and the wish to stop arrive alike.
"""

import random
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from queue import Empty

from orders_worker.attempt.attempt import Attempt, AttemptSettings, Completed, Result
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.finished import Finished
from orders_worker.dispatch.floor import Floor
from orders_worker.dispatch.shutdown import Shutdown
from orders_worker.dispatch.slots import Mailbox, Slots
from schema.errors import DatabaseError, StatementRefusedError
from schema.order import Claim, Fence
from schema.queue import exchange, workers
from schema.queue.endings import Ending
from schema.queue.exchange import Exchanged
from schema.queue.workers import Registration
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.watchdog import Watchdog
from schema.states import Outcome

IDLE_SECONDS = 60.0
"""How long it may wait for its mailbox when there is nothing to poll for."""

ROUND_SECONDS = 150.0
"""How long a round may take at most, with a database that answers nothing in time."""

_log = logs.Log(__name__)


class Dispatcher:
    """Holds claims from an exchange that brings them to the one that writes their end.

    A claim leaves `claims` only when the database has its end or says that it is lost; what is finished
    while the database is away waits here. `register` enters a new worker when this one was declared dead.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        mailbox: Mailbox,
        slots: Slots,
        settings: AttemptSettings,
        shutdown: Shutdown,
        database: Reconnecting,
        register: Callable[[Connection], Registration],
        poll_seconds: float,
    ) -> None:
        self._claims = claims
        self._mailbox = mailbox
        self._slots = slots
        self._settings = settings
        self._shutdown = shutdown
        self._database = database
        self._register = register
        self._poll_seconds = poll_seconds
        self._floor = Floor()
        self._finished = Finished(claims)
        self._hungry = True
        self._dead_id = ""
        self._poll_at = 0.0
        self._recover_at: list[float] = []
        self._suspicious = False
        self.exhausted = False
        self.rounds = Watchdog(patience_seconds=ROUND_SECONDS)
        self.claiming = Watchdog(resting=True)

    def run(self) -> None:
        """Work until told to stop and nothing is in hand, or the time to wait for it is over."""
        while not self._is_over():
            self.rounds.beat()
            if self._is_due():
                self._turn()
            self._database.watchdog.expect(when=self._awaits())
            self._collect(self._pause())
            self._give_up_overdue()
            if self._shutdown.hands_back():
                self._hand_back()

    def declare_dead(self, worker_id: str) -> None:
        """Take the word of another thread that the database has declared `worker_id` dead."""
        self._dead_id = worker_id
        self._mailbox.put(None)

    def leave(self) -> None:
        """Sign off in the database, if it is there; what is still in hand is rescued by others."""
        try:
            workers.leave(self._database.connection(), self._claims.worker_id)
        except DatabaseError as error:
            _log.warning("left_without_a_word", error=error)
        self._database.close()

    def _is_over(self) -> bool:
        """Tell whether to leave; begin the end when as many attempts hang, given up, as there are slots."""
        if self._slots.abandoned >= self._slots.count and not self.exhausted:
            self.exhausted = True
            _log.error("handlers_hang", abandoned=self._slots.abandoned)
            self._shutdown.begin()
        return self._shutdown.over() or (self._shutdown.requested and not self._claims)

    # What to do next, and when.

    def _free(self) -> int:
        return 0 if self._shutdown.requested else self._slots.free

    def _is_dead(self) -> bool:
        return self._dead_id == self._claims.worker_id

    def _awaits(self) -> bool:
        return self._free() > 0 or bool(self._finished) or self._is_dead()

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._database.retry_at:
            return False
        if self._is_dead() or self._finished.fresh or (self._hungry and self._free() > 0):
            return True
        return self._awaits() and now >= self._poll_at

    def _pause(self) -> float:
        """Return how long to wait for the mailbox: not at all when another turn or the end is due."""
        if self._is_due() or self._is_over():
            return 0.0
        moments = [time.monotonic() + IDLE_SECONDS]
        if self._database.broken:
            moments.append(self._database.retry_at)
        elif self._awaits():
            moments.append(self._poll_at)
        if (stop_at := self._shutdown.next_at()) is not None:
            moments.append(stop_at)
        if (overdue_at := self._slots.overdue_at) is not None:
            moments.append(overdue_at)
        return max(min(moments) - time.monotonic(), 0.001)

    # What arrives.

    def _collect(self, seconds: float) -> None:
        try:
            self._receive(self._mailbox.get(timeout=seconds) if seconds else self._mailbox.get_nowait())
            while True:
                self._receive(self._mailbox.get_nowait())
        except Empty:
            pass

    def _receive(self, letter: tuple[Attempt, Result | None] | None) -> None:
        self._hungry = True
        if letter is None:
            return
        attempt, result = letter
        fence = attempt.fence
        self._slots.returned(attempt)
        if result is None or attempt.worker_id != self._claims.worker_id:
            return
        if isinstance(result, Completed):
            self._finished.complete(fence)
        elif isinstance(result, Ending):
            self._finished.end(result)
        else:
            self._claims.drop([fence])

    def _give_up_overdue(self) -> None:
        for attempt in self._slots.overdue():
            if attempt.abandon():
                self._finished.end(
                    attempt.ending(Outcome.TIMED_OUT, "the attempt took longer than ORDERS_TIMEOUT_SECONDS")
                )
            self._slots.replace(attempt)

    def _hand_back(self) -> None:
        for attempt in self._slots.running:
            if attempt.abandon():
                self._finished.end(attempt.ending(Outcome.RELEASED))

    # What goes to the database.

    def _turn(self) -> None:
        """Do one round with the database; on any failure keep everything and try again later."""
        try:
            connection = self._database.connection()
            if self._is_dead():
                self._begin_anew(connection)
            if self._recover_at and time.monotonic() >= self._recover_at[0]:
                self._recover_claims(connection)
            if self._suspicious:
                self._write_singly(connection)
            else:
                self._finished.write(connection, self._finished.endings)
            self._exchange(connection)
            self._suspicious = False
        except DatabaseError as error:
            if isinstance(error, StatementRefusedError):
                self._suspicious = True
                _log.error("statement_refused", error=error)
            self._lose_connection(error)
        else:
            self._database.succeeded()
            self._database.watchdog.beat()
        self._poll_at = time.monotonic() + self._poll_seconds * random.uniform(0.97, 1)  # noqa: S311 - jitter

    def _lose_connection(self, error: Exception) -> None:
        self._database.failed(error)
        # The lost answer may have brought claims: look when the database is back, and once more when the
        # statement can't commit any later.
        self._recover_at = [0.0, time.monotonic() + 2 * REPLY_SECONDS]

    def _begin_anew(self, connection: Connection) -> None:
        """Go on under a new id: the old one was declared dead, so all that it held is somebody else's."""
        old = self._claims.worker_id
        dropped = self._claims.renew(self._register(connection))
        self._finished.forget()
        for attempt in dropped:
            attempt.abandon()
        _log.warning("worker_was_declared_dead", old_worker_id=old, dropped=len(dropped))

    def _write_singly(self, connection: Connection) -> None:
        """Find out which row the database refuses, and write the others.

        A refused completion becomes a failed attempt; a refused ending stays in hand for a later try.
        """
        for fence in self._finished.completed:
            try:
                self._exchange(connection, finished=[fence], free=0)
            except StatementRefusedError as error:
                self._finished.end(self._claims[fence].ending(Outcome.RAISED, str(error)))
        for ending in self._finished.endings:
            try:
                self._finished.write(connection, [ending])
            except StatementRefusedError as error:
                _log.error("ending_refused", error=error, order_id=ending.fence.order_id)

    def _exchange(
        self, connection: Connection, *, finished: list[Fence] | None = None, free: int | None = None
    ) -> None:
        finished = self._finished.completed if finished is None else finished
        free = self._free() if free is None else free
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
        self._hungry = len(exchanged.claimed) == free > 0
        self.claiming.expect(when=exchanged.suppressed and not exchanged.claimed)
        if not exchanged.alive:
            self._dead_id = self._claims.worker_id
        tickets = [claim.seq for claim in exchanged.claimed if claim.attempt == 1]
        self._floor.learn(tickets, filled=len(exchanged.claimed) == free)
        # While claims may still have to be recovered, `since` stays at the last answered exchange.
        self._start(exchanged.claimed, at=self._claims.since if self._recover_at else exchanged.at)
        self._report(exchanged, completed=completed)

    def _recover_claims(self, connection: Connection) -> None:
        """Start what an exchange claimed whose answer was lost on the way."""
        held = self._claims.holding()
        claims = exchange.recover_claims(
            connection, held.worker_id, held=held.order_ids, since=self._claims.since
        )
        self._recover_at.pop(0)
        free = self._free()
        self._start(claims[:free], at=self._claims.since)
        self._return(claims[free:])
        if claims:
            _log.warning("claims_recovered", count=len(claims))

    def _return(self, claims: list[Claim]) -> None:
        """Hand back claims that no slot is free for."""
        attempts = [
            Attempt(claim, worker_id=self._claims.worker_id, settings=self._settings) for claim in claims
        ]
        self._claims.take(attempts, at=self._claims.since)
        for attempt in attempts:
            self._finished.end(attempt.ending(Outcome.RELEASED))

    def _start(self, claims: Iterable[Claim], *, at: datetime) -> None:
        attempts = [
            Attempt(claim, worker_id=self._claims.worker_id, settings=self._settings) for claim in claims
        ]
        self._claims.take(attempts, at=at)
        for attempt in attempts:
            self._slots.start(attempt)

    def _report(self, exchanged: Exchanged, *, completed: int) -> None:
        for fence in exchanged.lost:
            _log.warning("claim_lost", order_id=fence.order_id, attempt=fence.attempt)
        if completed or exchanged.claimed:
            _log.info("exchanged", completed=completed, claimed=len(exchanged.claimed))
