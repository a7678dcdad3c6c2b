"""SIGTERM, SIGINT and SIGHUP request a stop, and a later one hurries it; SIGUSR1 shows stacks."""

import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from types import FrameType

_SAME_SECONDS = 1.0
_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(SystemExit):
    """A signal came before the program had started its work: it exits with status 0."""


def show_stacks() -> None:
    """Write the stack of each thread to stderr at every SIGUSR1, and when a fault such as SIGSEGV ends us."""
    faulthandler.register(signal.SIGUSR1)
    faulthandler.enable()


class StopSignals:
    """Whether this process was asked to stop (`requested`), and whether it was asked again (`impatient`).

    make and a terminal both signal the whole process group. So a second signal within a second counts as the
    first. Before `defer` or `call`, a signal ends the process.
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
        """Handle the signals, also SIGINT in a background job, for which the shell ignores it.

        SIGHUP (the terminal closes) stays ignored under nohup. Install again after other code that may have
        taken or blocked them.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.receive)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)

    def ignore(self) -> None:
        """Ignore the signals: a late one must not change the exit status of a process that already ends."""
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def defer(self) -> None:
        """Only record a signal from now on: what this process has begun has to be ended in order."""
        self._on_signal = lambda: None

    def call(self, on_signal: Callable[[], None]) -> None:
        """Call `on_signal` at each signal from now on, in a thread of its own. Once in a process.

        Python runs signal handlers in the main thread, between two instructions. A main thread that waits for
        a lock does not wake when the kernel gives the signal to another thread, or just before the wait.
        `on_signal` must wake it.
        """
        self.defer()
        inside, outside = socket.socketpair()
        inside.settimeout(None)  # whatever other code has made the default
        outside.settimeout(0)
        signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
        threading.Thread(
            target=_relay, args=[inside, outside, on_signal], name="orders-signals", daemon=True
        ).start()

    def receive(self, _number: int, _frame: FrameType | None) -> None:
        """Record one signal."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at > _SAME_SECONDS:
            self.impatient = True
        self._on_signal()

    def _exit(self) -> None:
        self.ignore()
        raise StoppedError(0)


class _Fork(threading.local):
    """Lets the signals end a child that a handler forks, as they end any process.

    They are blocked during the fork: one that reaches the child before it handles them itself would be lost.
    """

    mask: AbstractSet[int] = frozenset()

    def begin(self) -> None:
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)

    def end_in_child(self) -> None:
        for number in _NUMBERS:
            if getattr(signal.getsignal(number), "__func__", None) is StopSignals.receive:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
                signal.set_wakeup_fd(-1)
        self.end()

    def end(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


_fork = _Fork()
os.register_at_fork(before=_fork.begin, after_in_parent=_fork.end, after_in_child=_fork.end_in_child)


def _relay(inside: socket.socket, _outside: socket.socket, on_signal: Callable[[], None]) -> None:
    while inside.recv(64):
        on_signal()
