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
    """The stages of the end, which `signals` may begin or hasten; `advance` goes from one to the next.

    From a signal on it is `requested`: nothing new is claimed. With the next `advance` it has `begun`:
    handlers are waited for, until it is `handing_back`. The next stage begins at `next_at` on that clock.
    """

    def __init__(
        self, signals: StopSignals, *, shutdown_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signals = signals
        self._shutdown_seconds = shutdown_seconds
        self._clock = clock
        self.begun = False
        self.next_at = math.inf
        self.handing_back = False

    @property
    def requested(self) -> bool:
        """Whether nothing new is claimed any more."""
        return self.begun or self._signals.requested

    @property
    def over(self) -> bool:
        """Whether to leave even if not everything could be written."""
        return self.handing_back and self._clock() >= self.next_at

    def begin(self) -> None:
        """Stop claiming, without a signal."""
        if not self.begun:
            self.begun = True
            self.next_at = self._clock() + self._shutdown_seconds
            _log.info("worker_stopping")

    def advance(self) -> None:
        """Begin to stop if a signal came, and to hand back if the time is over or a second signal came."""
        if self._signals.requested:
            self.begin()
        if not self.handing_back and (self._signals.impatient or self._clock() >= self.next_at):
            self.handing_back = True
            self.next_at = self._clock() + HAND_BACK_SECONDS
