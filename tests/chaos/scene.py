"""Where faults happen: what they can reach, and what they leave in writing."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple
from uuid import UUID

from tests.chaos.database import Database
from tests.chaos.network import Relay
from tests.chaos.processes import Machine, Supervisor

Span = tuple[float, float]
"""From and to, in seconds since 1970."""

EVERYWHERE = "every machine"
SERVER = "the server"


class Told(NamedTuple):
    """What a fault says it is about to do, and where: a machine's name, `EVERYWHERE` or `SERVER`."""

    place: str
    words: str


@dataclass(slots=True)
class Happening:
    """One fault, from its beginning until all that it did was undone (0 while it lasts)."""

    kind: str
    place: str
    words: str
    began_at: float
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A worker that was stopped for a while and went on."""

    pid: int
    began_at: float
    ended_at: float


@dataclass(slots=True)
class Scene:
    """Everything under test. `over` is set when no fault may go on.

    `locked` are the orders that faults had locked, each with the times.
    """

    database: Database
    supervisor: Supervisor
    relays: dict[str, Relay]
    happenings: list[Happening] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    locked: dict[UUID, list[Span]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)

    def pause(self, seconds: float) -> bool:
        """Wait; return whether everything is over."""
        return self.over.wait(seconds)

    def worker(self, dice: Random) -> Machine:
        """Choose the machine of a worker."""
        return dice.choice([machine for machine in self.supervisor.machines if machine.worker])

    def worker_to_stop(self, dice: Random) -> Machine | None:
        """Choose the machine of a worker that is not stopped; None if it is the last one."""
        running = [each for each in self.supervisor.machines if each.worker and not each.stopped]
        return dice.choice(running) if len(running) > 1 else None

    def api(self, dice: Random) -> Machine:
        """Choose the machine of an API process."""
        return dice.choice([machine for machine in self.supervisor.machines if not machine.worker])

    def say(self, words: str) -> None:
        """Tell who looks on."""
        print(f"{time.monotonic() - self.began:7.1f} s  {words}", file=sys.stderr, flush=True)

    @contextmanager
    def happening(self, kind: str, told: Told) -> Iterator[None]:
        """Note a fault while it lasts."""
        happening = Happening(kind, told.place, told.words, began_at=time.time())
        self.happenings.append(happening)
        self.say(f"{kind}: {told.place}, {told.words}")
        try:
            yield
        finally:
            happening.ended_at = time.time()

    @contextmanager
    def stopped(self, machine: Machine) -> Iterator[None]:
        """Freeze a process, and thaw it."""
        began_at = time.time()
        pid = self.supervisor.stop(machine)
        try:
            yield
        finally:
            self.supervisor.resume(machine)
            if machine.worker:
                self.stalls.append(Stall(pid, began_at, ended_at=time.time()))
