"""A watchdog timer for one thing that a thread does again and again: an answer, a beat, a tick, a claim."""

import time
from collections.abc import Callable

OVERDUE_SECONDS = 6.0
"""How long a thing that comes about every second may stay away before its watchdog is overdue."""

FAILING_SECONDS = 5.0
"""How long every try may fail before the watchdog is overdue."""


class Watchdog:
    """Overdue when not beaten for `patience_seconds`, or when every try failed for `FAILING_SECONDS`.

    At rest it expects nothing and is never overdue. `error` is what the last try raised, None after a beat.
    One thread beats it, any thread may read it.
    """

    def __init__(
        self,
        *,
        patience_seconds: float = OVERDUE_SECONDS,
        resting: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._since = None if resting else clock()
        self._failing_since: float | None = None
        self.error: BaseException | None = None

    def beat(self) -> None:
        """Record a success, and expect the next one from now on."""
        self._since = self._clock()
        self._failing_since = self.error = None

    def fail(self, error: BaseException) -> None:
        """Record a failed try."""
        self.expect(when=True)
        if self._failing_since is None:
            self._failing_since = self._clock()
        self.error = error

    def expect(self, *, when: bool) -> None:
        """Expect a beat from now on, unless one is expected already. With `when` False, rest."""
        if not when:
            self._since = self._failing_since = self.error = None
        elif self._since is None:
            self._since = self._clock()

    @property
    def resting(self) -> bool:
        """Whether no beat is expected."""
        return self._since is None

    @property
    def seconds(self) -> float:
        """How long the next beat has been expected."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    @property
    def overdue(self) -> bool:
        """Whether the beat is late, or tries have failed for too long."""
        failing_since = self._failing_since
        failing_seconds = 0.0 if failing_since is None else self._clock() - failing_since
        return self.seconds > self._patience_seconds or failing_seconds > FAILING_SECONDS
