"""How a worker ends: it stops claiming, waits for its handlers, hands the rest back, and at last gives up."""

import math
import time
from collections.abc import Callable

from schema.runtime import logs
from schema.runtime.signals import StopSignals

HAND_BACK_SECONDS = 5.0
"""How long handing back may take before the worker leaves it to the rescue."""

_log = logs.Log(__name__)


class Shutdown:
    """The stages of the end, as the dispatcher asks for them. `signals` may begin or hasten it."""

    def __init__(
        self, signals: StopSignals, *, shutdown_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signals = signals
        self._shutdown_seconds = shutdown_seconds
        self._clock = clock
        self._hand_back_at = math.inf
        self._handed_back_at: float | None = None

    @property
    def requested(self) -> bool:
        """Whether nothing new is claimed any more."""
        if self._signals.requested:
            self.begin()
        return self._hand_back_at < math.inf

    def begin(self) -> None:
        """Stop claiming, without a signal."""
        if self._hand_back_at == math.inf:
            self._hand_back_at = self._clock() + self._shutdown_seconds
            _log.info("worker_stopping")

    def hands_back(self) -> bool:
        """Tell whether what still runs is handed back now: the time is over, or a second signal came."""
        if self._handed_back_at is None and self.requested and self._waited_enough():
            self._handed_back_at = self._clock()
        return self._handed_back_at is not None

    def _waited_enough(self) -> bool:
        return self._signals.impatient or self._clock() >= self._hand_back_at

    def over(self) -> bool:
        """Tell whether to leave even if not everything could be written."""
        return self._handed_back_at is not None and self._clock() >= self._handed_back_at + HAND_BACK_SECONDS

    def next_at(self) -> float | None:
        """Return when the next stage begins, on the clock of `time.monotonic()`; None before the end."""
        if self._handed_back_at is not None:
            return self._handed_back_at + HAND_BACK_SECONDS
        return self._hand_back_at if self._hand_back_at < math.inf else None
