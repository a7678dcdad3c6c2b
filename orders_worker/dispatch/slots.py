"""The threads that run handlers, one order each at a time."""

import math
import threading
import time
from itertools import takewhile
from queue import SimpleQueue

from orders_worker.attempt.attempt import Attempt, Result
from orders_worker.attempt.event_loop import EventLoop
from schema.order import Claim

Mailbox = SimpleQueue[tuple[Attempt, Result | None] | None]
"""Where `(attempt, what came of it)` arrives from a slot, and None, which wakes the dispatcher."""


class Slots:
    """As many threads as orders are worked on at once; what they return arrives in `mailbox`.

    All attempts have the same time limit. Call every method from the dispatcher's thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.mailbox: Mailbox = SimpleQueue()
        self.abandoned = 0
        # In the order of their starts, so that the first is the first to be overdue.
        self._running: dict[Attempt, None] = {}
        self._work: SimpleQueue[Attempt | None] = SimpleQueue()
        for _ in range(count):
            self._add_thread()

    @property
    def free(self) -> int:
        """How many attempts could start now: none beside one that runs alone."""
        first = next(iter(self._running), None)
        if first is not None and first.claim.runs_alone:
            return 0
        return self.count - len(self._running)

    def may_start(self, claim: Claim) -> bool:
        """Tell whether a free slot may take it: an order that runs alone needs all slots empty."""
        return not (claim.runs_alone and self._running)

    @property
    def running(self) -> list[Attempt]:
        """The attempts in slots, longest running first."""
        return list(self._running)

    @property
    def overdue_at(self) -> float:
        """When the first of them is overdue, on the clock of `time.monotonic()`; infinity for never."""
        return next((attempt.deadline or math.inf for attempt in self._running), math.inf)

    def overdue(self) -> list[Attempt]:
        """Return those whose time is over."""
        now = time.monotonic()
        return list(takewhile(lambda a: a.deadline is not None and a.deadline <= now, self._running))

    def start(self, attempt: Attempt) -> None:
        """Hand an attempt to a free thread."""
        self._running[attempt] = None
        self._work.put(attempt)

    def returned(self, attempt: Attempt) -> None:
        """Record that an attempt's thread is done with it."""
        if attempt.replaced:
            self.abandoned -= 1
        else:
            del self._running[attempt]

    def replace(self, attempt: Attempt) -> None:
        """Put a fresh thread into an attempt's slot, unless it is over. The old one ends with the attempt."""
        if attempt.replace():
            del self._running[attempt]
            self.abandoned += 1
            self._add_thread()

    def stop(self) -> None:
        """End the threads that have nothing to do; the others end with the process."""
        for _ in range(self.count):
            self._work.put(None)

    def _add_thread(self) -> None:
        threading.Thread(target=self._run, name="orders-slot", daemon=True).start()

    def _run(self) -> None:
        with EventLoop() as loop:
            while (attempt := self._work.get()) is not None:
                self.mailbox.put((attempt, attempt.run(loop)))
                if attempt.replaced:
                    return
