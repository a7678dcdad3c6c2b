"""SIGTERM and SIGINT: the wish to stop, and the impatience of asking twice."""

import signal
import time
from collections.abc import Callable
from types import FrameType

_SAME_SECONDS = 1.0


class StopSignals:
    """Whether this process was asked to stop (`requested`), and whether it was asked again (`impatient`).

    make and a terminal both signal the whole group, so a second signal within a second is the first one
    over again. Until `call` names something better, a signal ends the process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_at: float | None = None
        self._on_signal: Callable[[], None] = self._exit
        self.impatient = False

    @property
    def requested(self) -> bool:
        """Whether any signal came."""
        return self._first_at is not None

    def install(self) -> None:
        """Take both signals, also where a shell's background job was started with SIGINT ignored."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.receive)

    def ignore(self) -> None:
        """Ignore both: a late repetition must not change the status of a process that ends already."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def call(self, on_signal: Callable[[], None]) -> None:
        """Call `on_signal` at each signal from now on: between any two instructions of the main thread."""
        self._on_signal = on_signal

    def receive(self, _number: int, _frame: FrameType | None) -> None:
        """Take note of one signal."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at > _SAME_SECONDS:
            self.impatient = True
        self._on_signal()

    def _exit(self) -> None:
        self.ignore()
        raise SystemExit(0)
