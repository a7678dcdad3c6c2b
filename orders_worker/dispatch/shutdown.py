"""How a worker ends: it stops claiming, waits for its handlers, hands the rest back, and at last gives up."""

import time
from collections.abc import Callable

from schema.runtime import logs
from schema.runtime.signals import StopSignals

HAND_BACK_SECONDS = 5.0
"""How long handing back may take before the worker leaves it to the rescue."""

_log = logs.Log(__name__)


class Shutdown:
    """The stages of the end, as the dispatcher asks for them; `signals` may begin or hasten it."""

    def __init__(
        self, signals: StopSignals, *, shutdown_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signals = signals
        self._shutdown_seconds = shutdown_seconds
        self._clock = clock
        self._began_at: float | None = None
        self._handed_back_at: float | None = None

    @property
    def requested(self) -> bool:
        """Whether nothing new is claimed any more."""
        if self._signals.requested:
            self.begin()
        return self._began_at is not None

    def begin(self) -> None:
        """Stop claiming, without a signal."""
        if self._began_at is None:
            self._began_at = self._clock()
            _log.info("worker_stopping")

    def hands_back(self) -> bool:
        """Whether what still runs is handed back now: the time is over, or it was asked for twice."""
        if self._handed_back_at is None and self.requested:
            assert self._began_at is not None  # noqa: S101 - requested
            if self._signals.impatient or self._clock() >= self._began_at + self._shutdown_seconds:
                self._handed_back_at = self._clock()
        return self._handed_back_at is not None

    def over(self) -> bool:
        """Whether to leave even if not everything could be written."""
        return self._handed_back_at is not None and self._clock() >= self._handed_back_at + HAND_BACK_SECONDS

    def next_at(self) -> float | None:
        """Return when the next stage begins, on the clock of `time.monotonic()`."""
        if self._handed_back_at is not None:
            return self._handed_back_at + HAND_BACK_SECONDS
        return None if self._began_at is None else self._began_at + self._shutdown_seconds
