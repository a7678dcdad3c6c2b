"""Several API processes on one port: started together, replaced when they die, stopped together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from queue import Empty, SimpleQueue

from schema.runtime import logs
from schema.runtime.signals import StopSignals

LISTENER = "--listener"
"""How a process is told which file descriptor is the socket that it shares with the others."""

SOON_SECONDS = 10.0
"""A process that dies sooner than this after its start is replaced after a pause."""

PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The pause after the first such death, the second in a row, and so on."""

_log = logs.Log(__name__)


class Supervisor:
    """Keeps `count` processes serving on a bound and listening socket until `stop`.

    One that has not ended `stop_seconds` after the stop, and five more, is killed.
    """

    def __init__(
        self, listener: socket.socket, *, count: int, stop: StopSignals, stop_seconds: float
    ) -> None:
        self._listener = listener
        self._count = count
        self._stop_seconds = stop_seconds
        self._ended: SimpleQueue[_Process | None] = SimpleQueue()
        self._running: list[_Process] = []
        self._stopping = threading.Event()
        self._stop = stop
        stop.call(lambda: self._ended.put(None))

    def run(self) -> None:
        """Serve; return when all have ended, which they do on the stop's word or are killed."""
        for _ in range(self._count):
            self._start(early_deaths=0)
        while not self._stop.requested:
            if (process := self._ended.get()) is not None:
                self._running.remove(process)
                if not self._stop.requested:
                    self._start(early_deaths=process.early_deaths)
        self._end()

    def _start(self, *, early_deaths: int) -> None:
        process = _Process(self._listener, early_deaths=early_deaths)
        self._running.append(process)
        _log.info("process_started", pid=process.pid)
        threading.Thread(target=self._await, args=[process], daemon=True).start()

    def _await(self, process: "_Process") -> None:
        """Wait for its end; report it when it may be replaced."""
        status = process.wait()
        if not self._stopping.is_set():
            _log.error("process_ended", pid=process.pid, status=status)
            self._stopping.wait(pause_seconds(process.early_deaths))
        self._ended.put(process)

    def _end(self) -> None:
        """End all; they count two signals within a second as one, and a later one hurries them."""
        give_up_at = time.monotonic() + self._stop_seconds + 5
        impatient = False
        self._stopping.set()
        # The others have it too: with the last of them gone, clients are refused.
        self._listener.close()
        self._send(signal.SIGTERM)
        while self._running and time.monotonic() < give_up_at:
            try:
                process = self._ended.get(timeout=max(give_up_at - time.monotonic(), 0.001))
            except Empty:
                break
            if process is not None:
                self._running.remove(process)
            elif self._stop.impatient and not impatient:
                impatient = True
                self._send(signal.SIGTERM)
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            process.send(number)


class _Process:
    """One of them. It ends with this one, however that ends: its standard input is a pipe from here.

    It has a process group of its own, so that a terminal's Ctrl-C comes from here, too. `early_deaths` are
    those in a row before its start.
    """

    def __init__(self, listener: socket.socket, *, early_deaths: int) -> None:
        self._began_at = time.monotonic()
        self.early_deaths = early_deaths
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orders_api", LISTENER, str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            process_group=0,
        )
        self.pid = self._process.pid

    def wait(self) -> int:
        """Wait for its end; return how it ended."""
        status = self._process.wait()
        early = time.monotonic() < self._began_at + SOON_SECONDS
        self.early_deaths = self.early_deaths + 1 if early else 0
        return status

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        self._process.send_signal(number)


def pause_seconds(early_deaths: int) -> float:
    """Return how long to wait after so many early deaths in a row: not at all after none."""
    return (0.0, *PAUSES_SECONDS)[min(early_deaths, len(PAUSES_SECONDS))]


def end_with_the_parent() -> None:
    """Have this process stop when the one that started it is gone."""

    def watch() -> None:
        # Not sys.stdin, whose lock a thread would hold when the interpreter ends.
        while os.read(0, 64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="orders-parent", daemon=True).start()
