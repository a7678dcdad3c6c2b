"""When to turn: the worker's main loop, which keeps every slot busy and waits for nothing else.

It runs in the worker's main thread. Its one blocking call besides the turn itself is reading the mailbox,
where results, wake-ups and the wish to stop arrive alike.
"""

import random
import time
from queue import Empty

from orders_worker.attempt.attempt import Attempt, Done, Result
from orders_worker.dispatch.exchanger import Exchanger
from orders_worker.dispatch.shutdown import Shutdown
from schema.queue.endings import Ending
from schema.runtime import logs
from schema.runtime.watchdog import Watchdog
from schema.states import Outcome

IDLE_SECONDS = 60.0
"""How long it may wait for its mailbox when there is nothing to poll for."""

ROUND_SECONDS = 150.0
"""How long a round may take at most, with a database that answers nothing in time."""

REPORT_SECONDS = 5.0
"""How often a stopping worker logs what it waits for."""

REPORTED_ORDERS = 5
"""How many of the orders that it waits for are named."""

WAITING_ENDS = 4
"""Ends for each slot that may wait to be written before nothing new is claimed. More than one wait only while
rows are locked or a user's trigger undoes what is written."""

_log = logs.Log(__name__)


class Dispatcher:
    """Turns when something has ended, when slots are free and orders may be in line, and at each poll.

    `exhausted` tells, at the end, that as many attempts hang as there are slots. `rounds` is beaten by each
    round of the loop.
    """

    def __init__(self, exchanger: Exchanger, shutdown: Shutdown, *, poll_seconds: float) -> None:
        self._exchanger = exchanger
        self._claims = exchanger.claims
        self._finished = exchanger.finished
        self._slots = exchanger.slots
        self._mailbox = exchanger.slots.mailbox
        self._database = exchanger.database
        self._shutdown = shutdown
        self._poll_seconds = poll_seconds
        self._poll_at = 0.0
        self._report_at = 0.0
        self._may_find_orders = True
        self.exhausted = False
        self.rounds = Watchdog(patience_seconds=ROUND_SECONDS)

    def run(self) -> None:
        """Work until a stop was requested and nothing is held, or until the time to stop is over."""
        while not self._is_over():
            self.rounds.beat()
            self._shutdown.advance()
            self._report_the_wait()
            if self._shutdown.handing_back:
                self._hand_back()
            if self._is_due():
                self._turn()
            self._exchanger.watchdog.expect(when=self._waits_for_the_database())
            self._collect(self._pause())
            self._give_up_overdue()

    def _is_over(self) -> bool:
        return self._shutdown.over or (self._shutdown.begun and not self._claims)

    def _report_the_wait(self) -> None:
        """Log from time to time what a stop waits for."""
        now = time.monotonic()
        if not self._shutdown.begun or not self._claims or now < self._report_at:
            return
        self._report_at = now + REPORT_SECONDS
        running = [str(attempt.claim.order_id) for attempt in self._slots.running]
        _log.info(
            "worker_waits",
            handlers=len(running),
            unwritten=len(self._finished),
            seconds_left=round(self._shutdown.next_at - now),
            order_ids=",".join(running[:REPORTED_ORDERS]) or None,
        )

    def _free(self) -> int:
        """Return how many orders to claim: none while too many ends wait to be written."""
        if self._shutdown.requested or len(self._finished) >= WAITING_ENDS * self._slots.count:
            return 0
        return self._slots.free

    def _waits_for_the_database(self) -> bool:
        return self._free() > 0 or bool(self._finished) or self._claims.dead

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._database.retry_at:
            return False
        if self._claims.dead or self._finished.fresh or (self._may_find_orders and self._free() > 0):
            return True
        return self._waits_for_the_database() and now >= self._poll_at

    def _turn(self) -> None:
        self._may_find_orders = self._exchanger.turn(self._free)
        self._poll_at = time.monotonic() + self._poll_seconds * random.uniform(0.97, 1)  # noqa: S311 - jitter

    def _pause(self) -> float:
        """Return how long to wait for the mailbox: 0 when another turn or the end is due."""
        if self._is_due() or self._is_over():
            return 0.0
        moments = [time.monotonic() + IDLE_SECONDS, self._shutdown.next_at, self._slots.overdue_at]
        if self._shutdown.begun:
            moments.append(self._report_at)
        if self._database.broken:
            moments.append(self._database.retry_at)
        elif self._waits_for_the_database():
            moments.append(self._poll_at)
        return max(min(moments) - time.monotonic(), 0.001)

    def _collect(self, seconds: float) -> None:
        """Wait for the mailbox up to `seconds`, then empty it."""
        try:
            self._receive(self._mailbox.get(timeout=seconds))
            while True:
                self._receive(self._mailbox.get_nowait())
        except Empty:
            pass

    def _receive(self, letter: tuple[Attempt, Result | None] | None) -> None:
        self._may_find_orders = True
        if letter is None:
            return
        attempt, result = letter
        self._slots.returned(attempt)
        if result is None or attempt.worker_id != self._claims.worker_id:
            return
        if result is Done.TO_COMPLETE:
            self._finished.complete(attempt.fence)
        elif isinstance(result, Ending):
            self._finished.end(result)
        else:
            self._claims.drop([attempt.fence])

    def _give_up_overdue(self) -> None:
        """Give their slots to others. With as many attempts abandoned as there are slots, begin to stop."""
        for attempt in self._slots.overdue():
            self._abandon(attempt, Outcome.TIMED_OUT, "the attempt took longer than ORDERS_TIMEOUT_SECONDS")
            self._slots.replace(attempt)
        if self._slots.abandoned >= self._slots.count and not self.exhausted:
            self.exhausted = True
            _log.error("handlers_hang", abandoned=self._slots.abandoned)
            self._shutdown.begin()

    def _hand_back(self) -> None:
        for attempt in self._slots.running:
            self._abandon(attempt, Outcome.RELEASED)

    def _abandon(self, attempt: Attempt, outcome: Outcome, error: str | None = None) -> None:
        stack = attempt.stack()
        if attempt.abandon():
            _log.warning(
                "attempt_abandoned",
                order_id=attempt.claim.order_id,
                attempt=attempt.claim.attempt,
                outcome=outcome,
                stack=stack,
            )
            self._finished.end(attempt.ending(outcome, error))
