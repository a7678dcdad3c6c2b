"""SIGTERM, SIGINT and SIGHUP: the wish to stop, and the impatience of asking twice."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

_SAME_SECONDS = 1.0


class StoppedError(SystemExit):
    """A signal came before the program had begun: it ends with status 0."""


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
        """Take the signals, also where a shell's background job was started with SIGINT ignored.

        SIGHUP, a terminal that closes, stays ignored where nohup has it ignored.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.receive)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.receive)

    def ignore(self) -> None:
        """Ignore them: a late repetition must not change the status of a process that ends already."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def call(self, on_signal: Callable[[], None]) -> None:
        """Have a thread of its own call `on_signal` at each signal from now on; once a process.

        Python runs signal handlers in the main thread, between two instructions. A main thread that
        waits for a lock sleeps on if the kernel gave the signal to another thread, or just before the
        wait: `on_signal` is to wake it.
        """
        self._on_signal = lambda: None
        inside, outside = socket.socketpair()
        outside.settimeout(0)
        signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
        threading.Thread(
            target=_relay, args=[inside, outside, on_signal], name="orders-signals", daemon=True
        ).start()

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
        raise StoppedError(0)


def _relay(inside: socket.socket, _outside: socket.socket, on_signal: Callable[[], None]) -> None:
    while inside.recv(64):
        on_signal()
