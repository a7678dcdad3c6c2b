"""The processes under test, each on a machine of its own, and the supervisor that starts them again."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.handler import EXIT_STATUS

ROOT = Path(__file__).parent.parent.parent
PAUSE_SECONDS = 0.05
RESTART_SECONDS = 0.3
STOP_SECONDS = 45.0

YOUNG_SECONDS = 5.0
"""How long a process may be without the handlers for its signals, which then end it."""

_HANDLERS_HANG = 3
"""A worker's documented status when as many handlers hang as it has slots."""


@dataclass(frozen=True, slots=True)
class Exit:
    """One end of a process. `status` is negative for a signal; `expected`: harness or handler did it."""

    name: str
    pid: int
    status: int
    born_at: float
    at: float
    expected: bool


@dataclass(slots=True)
class Machine:
    """Where one process lives: what it is told, and by how much its clock is wrong (`+5h`, or empty)."""

    name: str
    module: str
    environment: Callable[[], Mapping[str, str]]
    log: Path
    clock: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    born_at: float = 0.0
    stopped: bool = False
    foreseen: set[int] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """The process's id, 0 while there is none."""
        return self.process.pid if self.process is not None else 0

    @property
    def worker(self) -> bool:
        """Whether it runs a worker and not the API."""
        return self.module == "orders_worker"


class Supervisor:
    """Keeps a process on every machine; what it ends itself it knows how to expect.

    Its methods may be called from any thread. `exits` grows.
    """

    def __init__(self, *, defect: str, faketime: Path | None) -> None:
        self.machines: list[Machine] = []
        self.exits: list[Exit] = []
        self._defect = defect
        self._faketime = faketime
        self._lock = threading.RLock()
        self._closing = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, machines: list[Machine]) -> None:
        """Start a process on each, and go on doing so."""
        self.machines = machines
        for machine in machines:
            self._launch(machine)
        self._thread.start()

    def kill(self, machine: Machine) -> None:
        """End it as a power cut does."""
        self._signal(machine, signal.SIGKILL, foreseen={-signal.SIGKILL})

    def terminate(self, machine: Machine) -> None:
        """Ask it to stop, as a deployment does."""
        young = time.time() < machine.born_at + YOUNG_SECONDS
        self._signal(machine, signal.SIGTERM, foreseen={0, -signal.SIGTERM} if young else {0})

    def stop(self, machine: Machine) -> int:
        """Freeze it; return its pid."""
        self._signal(machine, signal.SIGSTOP)
        machine.stopped = True
        return machine.pid

    def resume(self, machine: Machine) -> None:
        """Thaw it."""
        self._signal(machine, signal.SIGCONT)
        machine.stopped = False

    def close(self) -> None:
        """Ask all of them to stop, and see that they do."""
        self._closing = True
        for machine in self.machines:
            self.resume(machine)
            self.terminate(machine)
        give_up_at = time.monotonic() + STOP_SECONDS
        while any(machine.process for machine in self.machines) and time.monotonic() < give_up_at:
            self._look()
            time.sleep(PAUSE_SECONDS)
        self.destroy()

    def destroy(self) -> None:
        """Kill whatever is left, expected or not."""
        with self._lock:
            self._closing = True
            for machine in self.machines:
                if machine.process is not None:
                    machine.process.kill()
                    machine.process.wait()
            self._look()

    def _signal(self, machine: Machine, number: int, *, foreseen: Set[int] = frozenset()) -> None:
        with self._lock:
            if machine.process is not None and machine.process.poll() is None:
                machine.foreseen |= foreseen
                machine.process.send_signal(number)

    def _watch(self) -> None:
        while not self._closing:
            self._look()
            for machine in self.machines:
                if machine.process is None and self._is_due(machine):
                    self._launch(machine)
            time.sleep(PAUSE_SECONDS)

    def _is_due(self, machine: Machine) -> bool:
        last = next(each.at for each in reversed(self.exits) if each.name == machine.name)
        return time.time() >= last + RESTART_SECONDS

    def _look(self) -> None:
        with self._lock:
            for machine in self.machines:
                if machine.process is not None and (status := machine.process.poll()) is not None:
                    self._bury(machine, status)

    def _bury(self, machine: Machine, status: int) -> None:
        expected = status in machine.foreseen or (machine.worker and status in (EXIT_STATUS, _HANDLERS_HANG))
        self.exits.append(
            Exit(machine.name, machine.pid, status, machine.born_at, at=time.time(), expected=expected)
        )
        machine.process = None
        machine.stopped = False

    def _launch(self, machine: Machine) -> None:
        with self._lock:
            if self._closing:
                return
            launcher = ["tests.chaos.launch"] if self._defect or machine.clock else []
            machine.foreseen.clear()
            machine.born_at = time.time()
            with machine.log.open("ab") as log:
                machine.process = subprocess.Popen(
                    [sys.executable, "-m", *launcher, machine.module],
                    cwd=ROOT,
                    env=self._environment(machine),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def _environment(self, machine: Machine) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ORDERS_", "PG")) and name not in {"DATABASE_URL", "BREAK"}
        }
        clock = {}
        if machine.clock and self._faketime is not None:
            clock = {
                "LD_PRELOAD": str(self._faketime),
                "FAKETIME": machine.clock,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return {**kept, **machine.environment(), **clock, "BREAK": self._defect}
