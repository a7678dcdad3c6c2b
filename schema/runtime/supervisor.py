"""Supervise processes: start them together, replace one that ends or stop all, and stop them together."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from schema.runtime import logs
from schema.runtime.signals import StopSignals

EARLY_SECONDS = 10.0
"""A process that ends sooner than this after its start is replaced after a pause."""

PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The pause after the first such end, the second in a row, and so on."""

_log = logs.Log(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What a process runs: a Python module, and its arguments."""

    module: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What differs between supervisors.

    `replace`: start a program again when it ends, after a pause if it ended early. Otherwise stop all.
    `kill_seconds`: how long processes may take to stop before they are killed; None for no limit.
    `listener`: a socket that they inherit. The supervisor closes its own when it stops them.
    """

    replace: bool
    kill_seconds: float | None = None
    listener: socket.socket | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a process. `status` is negative for a signal; `asked` if it had been asked to stop."""

    module: str
    pid: int
    status: int
    asked: bool


def log_end(ended: Ended) -> None:
    """Log the end of a process that was not asked to stop."""
    _log.error("process_ended", pid=ended.pid, status=ended.status)


class Supervisor:
    """Keeps a process for each of `programs` until `stop`.

    `on_end` is called when one ends that was not asked to. Each has a process group of its own, so that a
    terminal's Ctrl-C reaches it through the supervisor alone; `child` says how it ends with the supervisor.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        policy: Policy,
        *,
        stop: StopSignals,
        on_end: Callable[[Ended], None] = log_end,
    ) -> None:
        self._policy = policy
        self._stop = stop
        self._on_end = on_end
        self._starts = [_Start(program) for program in programs]
        self._running: list[_Process] = []
        self._events: SimpleQueue[_Process | None] = SimpleQueue()
        """A process that has ended, or None for a signal."""
        stop.call(lambda: self._events.put(None))

    def run(self) -> list[Ended]:
        """Supervise until all have ended; return the ends of those that were not replaced, in order."""
        ends: list[Ended] = []
        while not self._stop.requested and not ends:
            self._start_due()
            process = self._next_ended(before=min((each.at for each in self._starts), default=None))
            if process is None:
                continue
            ended = self._reap(process, asked=self._stop.requested)
            if not ended.asked:
                self._on_end(ended)
            if ended.asked or not self._policy.replace:
                ends.append(ended)
            else:
                self._starts.append(process.next_start())
        return ends + self._stop_all()

    def _start_due(self) -> None:
        now = time.monotonic()
        for start in [each for each in self._starts if each.at <= now]:
            self._starts.remove(start)
            process = _Process(start, self._policy.listener)
            self._running.append(process)
            _log.info("process_started", pid=process.pid)
            threading.Thread(target=self._await, args=[process], daemon=True).start()

    def _await(self, process: "_Process") -> None:
        process.wait()
        self._events.put(process)

    def _next_ended(self, *, before: float | None) -> "_Process | None":
        """Return the next process that has ended; None after a signal, or when the time has come."""
        try:
            return self._events.get(timeout=None if before is None else max(before - time.monotonic(), 0))
        except Empty:
            return None

    def _reap(self, process: "_Process", *, asked: bool) -> Ended:
        self._running.remove(process)
        return Ended(process.program.module, process.pid, process.wait(), asked)

    def _stop_all(self) -> list[Ended]:
        """Stop all that run; return their ends in order.

        A process counts two signals within a second as one, and hurries at a later one. Each gets a signal at
        once, and one when the stop is requested or becomes impatient afterwards.
        """
        if self._policy.listener is not None:
            # The processes have it too: clients are refused when the last of them has ended.
            self._policy.listener.close()
        seconds = self._policy.kill_seconds
        kill_at = None if seconds is None else time.monotonic() + seconds
        ends: list[Ended] = []
        passed_on: tuple[bool, bool] | None = None
        while self._running:
            wanted = (self._stop.requested, self._stop.impatient)
            if wanted != passed_on:
                passed_on = wanted
                self._send(signal.SIGTERM)
            process = self._next_ended(before=kill_at)
            if process is not None:
                ends.append(self._reap(process, asked=True))
            elif kill_at is not None and time.monotonic() >= kill_at:
                kill_at = None
                self._send(signal.SIGKILL)
        return ends

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            process.send(number)


@dataclass(frozen=True, slots=True)
class _Start:
    """A program to start at a time of `time.monotonic()`, after so many early ends in a row."""

    program: Program
    at: float = 0.0
    early_ends: int = 0


class _Process:
    """A program that runs."""

    def __init__(self, start: _Start, listener: socket.socket | None) -> None:
        self.program = start.program
        self._early_ends = start.early_ends
        self._started_at = time.monotonic()
        # Without -P the current folder would come first where Python looks for modules.
        python = [sys.executable, "-P", "-m", "schema.runtime.child"]
        self._process = subprocess.Popen(
            [*python, start.program.module, *start.program.arguments],
            stdin=subprocess.PIPE,
            pass_fds=[] if listener is None else [listener.fileno()],
            process_group=0,
        )
        self.pid = self._process.pid

    def wait(self) -> int:
        """Wait for its end; return its status."""
        return self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        self._process.send_signal(number)

    def next_start(self) -> _Start:
        """Return when to replace it, which has ended."""
        early = time.monotonic() < self._started_at + EARLY_SECONDS
        early_ends = self._early_ends + 1 if early else 0
        return _Start(self.program, time.monotonic() + pause_seconds(early_ends), early_ends)


def pause_seconds(early_ends: int) -> float:
    """Return how long to wait after so many early ends in a row: not at all after none."""
    return (0.0, *PAUSES_SECONDS)[min(early_ends, len(PAUSES_SECONDS))]
