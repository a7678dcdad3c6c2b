"""The sign of life of one thing that a worker awaits again and again: an answer, a beat, a tick, a claim."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 6.0
"""How long what comes about every second may stay away before somebody should know."""

FAILING_SECONDS = 5.0
"""How long every try may fail before somebody should know."""


class Pulse:
    """Given by whoever awaits the thing, felt by any thread.

    It is weak when the thing did not come for `patience_seconds`, or when every try failed for five. At
    rest nothing is awaited, and that is well. `error` is what the last try failed of, None if it did not.
    """

    def __init__(
        self,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        resting: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._since = None if resting else clock()
        self._failing_since: float | None = None
        self.error: BaseException | None = None

    def beat(self) -> None:
        """Note that it came; it is awaited again."""
        self._since = self._clock()
        self._failing_since = self.error = None

    def miss(self, error: BaseException) -> None:
        """Note that a try failed."""
        self.expect(when=True)
        if self._failing_since is None:
            self._failing_since = self._clock()
        self.error = error

    def expect(self, *, when: bool) -> None:
        """Await it from now on, unless it is awaited already; or rest, unless `when`."""
        if not when:
            self._since = self._failing_since = self.error = None
        elif self._since is None:
            self._since = self._clock()

    @property
    def resting(self) -> bool:
        """Whether nothing is awaited."""
        return self._since is None

    @property
    def seconds(self) -> float:
        """For how long it has been awaited."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    @property
    def weak(self) -> bool:
        """Whether it has been missed for too long."""
        failing_since = self._failing_since
        failing_seconds = 0.0 if failing_since is None else self._clock() - failing_since
        return self.seconds > self._patience_seconds or failing_seconds > FAILING_SECONDS
