"""Supervise processes: start them together, replace one that ends or stop all, and stop them together."""

import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from schema.runtime import logs
from schema.runtime.signals import StopSignals

EARLY_SECONDS = 10.0
"""A process that ends sooner than this after its start is replaced after a pause."""

PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The pause after the first such end, the second in a row, and so on."""

_log = logs.Log(__name__)


class Start(NamedTuple):
    """A Python module and its arguments, to be started `at` a time of `time.monotonic()`."""

    command: Sequence[str]
    at: float = 0.0
    early_ends: int = 0


class Process(subprocess.Popen[bytes]):
    """A process that runs `module`; at its end `asked` tells whether it had been asked to stop.

    It has a process group of its own, so that a terminal's Ctrl-C reaches it through the supervisor alone;
    `child` says how it ends with the supervisor.
    """

    def __init__(self, start: Start, listener: socket.socket | None) -> None:
        self.module = start.command[0]
        self.asked = False
        self._start = start
        self._started_at = time.monotonic()
        super().__init__(
            # Without -P the current folder would come first where Python looks for modules.
            [sys.executable, "-P", "-m", "schema.runtime.child", *start.command],
            stdin=subprocess.PIPE,
            pass_fds=[] if listener is None else [listener.fileno()],
            process_group=0,
        )

    def next_start(self) -> Start:
        """Return when to replace it, which has ended."""
        early = time.monotonic() < self._started_at + EARLY_SECONDS
        early_ends = self._start.early_ends + 1 if early else 0
        return Start(self._start.command, time.monotonic() + pause_seconds(early_ends), early_ends)


class Supervisor:
    """Keeps a process for each of `commands` until `stop`. It belongs to the main thread.

    A process that ends by itself is replaced, after a pause if it ended early; with `on_end`, that is called
    and all are stopped. One that takes more than `kill_seconds` to stop is killed. All inherit `listener`;
    the supervisor closes its own when it stops them.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        *,
        stop: StopSignals,
        on_end: Callable[[Process], None] | None = None,
        kill_seconds: float = math.inf,
        listener: socket.socket | None = None,
    ) -> None:
        self._stop = stop
        self._on_end = on_end
        self._kill_seconds = kill_seconds
        self._listener = listener
        self._starts = [Start(command) for command in commands]
        self._running: list[Process] = []
        self._signalled = threading.Event()
        # With a handler the signal wakes the main thread as any other does.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # as whoever started us may have left it
        stop.call(self._signalled.set)

    def run(self) -> list[Process]:
        """Supervise until all have ended; return those that were not replaced, as they were found ended."""
        ended: list[Process] = []
        while not self._stop.requested and not ended:
            self._start_due()
            process = self._next_ended(until=min((start.at for start in self._starts), default=math.inf))
            if process is None:
                continue
            process.asked = self._stop.requested
            if process.asked:
                ended.append(process)
            elif self._on_end is not None:
                self._on_end(process)
                ended.append(process)
            else:
                _log.error("process_ended", pid=process.pid, status=process.returncode)
                self._starts.append(process.next_start())
        return ended + self._stop_all()

    def _start_due(self) -> None:
        now = time.monotonic()
        for start in [each for each in self._starts if each.at <= now]:
            self._starts.remove(start)
            self._running.append(Process(start, self._listener))
            _log.info("process_started", pid=self._running[-1].pid)

    def _next_ended(self, *, until: float) -> Process | None:
        """Return a process that has ended; None after a signal, or when the time has come."""
        for process in self._running:
            if process.poll() is not None:
                self._running.remove(process)
                return process
        self._signalled.wait(min(until - time.monotonic(), threading.TIMEOUT_MAX))
        self._signalled.clear()
        return None

    def _stop_all(self) -> list[Process]:
        """Stop all that run; return them as they were found ended.

        A process counts two signals within a second as one, and hurries at a later one. Each gets a signal at
        once, and one when the stop is requested or becomes impatient afterwards.
        """
        if self._listener is not None:
            # The processes have it too: clients are refused when the last of them has ended.
            self._listener.close()
        kill_at = time.monotonic() + self._kill_seconds
        ended: list[Process] = []
        passed_on: tuple[bool, bool] | None = None
        while self._running:
            wanted = (self._stop.requested, self._stop.impatient)
            if wanted != passed_on:
                passed_on = wanted
                self._send(signal.SIGTERM)
            process = self._next_ended(until=kill_at)
            if process is not None:
                process.asked = True
                ended.append(process)
            elif time.monotonic() >= kill_at:
                kill_at = math.inf
                self._send(signal.SIGKILL)
        return ended

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            process.send_signal(number)


def pause_seconds(early_ends: int) -> float:
    """Return how long to wait after so many early ends in a row: not at all after none."""
    return (0.0, *PAUSES_SECONDS)[min(early_ends, len(PAUSES_SECONDS))]
