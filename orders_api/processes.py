"""Several API processes on one port: started together, replaced when they die, stopped together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from queue import Empty, SimpleQueue

from orders_api.server import STOP_SECONDS
from schema import logs
from schema.stopping import StopSignals

LISTENER = "--listener"
"""How a process is told which file descriptor is the socket that it shares with the others."""

RESTART_SECONDS = 1.0
"""A process that dies sooner than this after its start is replaced this long after it."""

_log = logs.Log(__name__)


class Processes:
    """Keeps `count` processes serving on a bound and listening socket."""

    def __init__(self, listener: socket.socket, *, count: int) -> None:
        self._listener = listener
        self._count = count
        self._ended: SimpleQueue[_Process | None] = SimpleQueue()
        self._running: list[_Process] = []

    def run(self, stop: StopSignals) -> None:
        """Serve until `stop`; return when all have ended, which they do on its word or are killed."""
        stop.call(lambda: self._ended.put(None))
        for _ in range(self._count):
            self._start()
        while not stop.requested:
            if (process := self._ended.get()) is not None:
                self._replace(process, stop)
        self._stop(stop)

    def _start(self) -> None:
        process = _Process(self._listener)
        self._running.append(process)
        _log.info("process_started", pid=process.pid)
        threading.Thread(target=self._await, args=[process], daemon=True).start()

    def _await(self, process: "_Process") -> None:
        process.wait()
        self._ended.put(process)

    def _replace(self, process: "_Process", stop: StopSignals) -> None:
        self._running.remove(process)
        _log.error("process_ended", pid=process.pid, status=process.status)
        if process.seconds < RESTART_SECONDS:
            time.sleep(RESTART_SECONDS)
        if not stop.requested:
            self._start()

    def _stop(self, stop: StopSignals) -> None:
        """End all; they count two signals within a second as one, and a later one hurries them."""
        give_up_at = time.monotonic() + STOP_SECONDS + 5
        impatient = False
        self._send(signal.SIGTERM)
        while self._running and time.monotonic() < give_up_at:
            try:
                process = self._ended.get(timeout=max(give_up_at - time.monotonic(), 0.001))
            except Empty:
                break
            if process is not None:
                self._running.remove(process)
            elif stop.impatient and not impatient:
                impatient = True
                self._send(signal.SIGTERM)
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            process.send(number)


class _Process:
    """One of them. It ends with this one, however that ends: its standard input is a pipe from here."""

    def __init__(self, listener: socket.socket) -> None:
        self._began_at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orders_api", LISTENER, str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        self.pid = self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended."""
        return self._process.returncode

    @property
    def seconds(self) -> float:
        """For how long it has been there."""
        return time.monotonic() - self._began_at

    def wait(self) -> None:
        """Wait for its end."""
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        self._process.send_signal(number)


def end_with_the_parent() -> None:
    """Have this process stop when the one that started it is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="orders-parent", daemon=True).start()
