"""The threads that run handlers, one order each at a time."""

import threading
from queue import SimpleQueue

from orders_worker.attempt import Attempt, Result


class Slots:
    """As many threads as orders are worked on at once.

    What an attempt came to is put into `mailbox` as `(attempt, result)`. The counts are the dispatcher's:
    call every method from its thread.
    """

    def __init__(self, count: int, *, mailbox: "SimpleQueue[tuple[Attempt, Result | None] | None]") -> None:
        self.count = count
        self.abandoned = 0
        self._running = 0
        self._mailbox = mailbox
        self._work: SimpleQueue[Attempt | None] = SimpleQueue()
        for _ in range(count):
            self._add_thread()

    @property
    def free(self) -> int:
        """How many attempts could start now."""
        return self.count - self._running

    def start(self, attempt: Attempt) -> None:
        """Hand an attempt to a free thread."""
        self._running += 1
        self._work.put(attempt)

    def returned(self, attempt: Attempt) -> None:
        """Take note that an attempt's thread is done with it."""
        if attempt.replaced:
            self.abandoned -= 1
        else:
            self._running -= 1

    def replace(self) -> None:
        """Put a fresh thread in the slot of an attempt abandoned as replaced; the old one ends by itself."""
        self._running -= 1
        self.abandoned += 1
        self._add_thread()

    def stop(self) -> None:
        """End the threads that have nothing to do; the others end with the process."""
        for _ in range(self.count):
            self._work.put(None)

    def _add_thread(self) -> None:
        threading.Thread(target=self._run, name="orders-slot", daemon=True).start()

    def _run(self) -> None:
        while (attempt := self._work.get()) is not None:
            result = attempt.run()
            self._mailbox.put((attempt, result))
            if attempt.replaced:
                return
