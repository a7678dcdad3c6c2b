"""A worker's health under a test's clock, and probes that tell it."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from orders_worker.health.probes import Probes
from orders_worker.health.reasons import Health
from schema.runtime.listening import bind
from schema.runtime.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Patient:
    """A worker's vitals under a clock of the test's own."""

    def __init__(self) -> None:
        self.clock = Clock()
        patience = {"rounds": 150.0, "heartbeat": 6.3, "connections": 30.0, "schema": float("inf")}
        resting = {"claiming", "connections"}
        self.watchdogs = {
            field.name: Watchdog(
                patience_seconds=patience.get(field.name, 6.0),
                resting=field.name in resting,
                clock=self.clock,
            )
            for field in dataclasses.fields(Health)
        }
        self.health = Health(**self.watchdogs)

    def lives(self, seconds: float, *, without: tuple[str, ...] = ()) -> None:
        """Let time pass in which all but some get what they await."""
        for _ in range(round(seconds / 0.5)):
            self.clock.now += 0.5
            for name, watchdog in self.watchdogs.items():
                if name not in without and not watchdog.resting:
                    watchdog.beat()

    def misses(self, name: str, error: Exception, *, seconds: float) -> None:
        """Let time pass in which the tries of one fail."""
        for _ in range(round(seconds / 0.5)):
            self.watchdogs[name].fail(error)
            self.lives(0.5, without=(name,))

    @property
    def reasons(self) -> list[str]:
        return [reason.name for reason in self.health.reasons()]

    @property
    def detail(self) -> str:
        return "; ".join(reason.detail for reason in self.health.reasons())

    @property
    def logged(self) -> str:
        return "; ".join(reason.detail_and_error for reason in self.health.reasons())


@contextmanager
def answering(patient: Patient) -> Iterator[Probes]:
    """Answer the patient's probes from a thread."""
    server = Probes(bind("127.0.0.1", 0, port_setting="ORDERS_HEALTH_PORT"), patient.health)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.wait(1.0)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        server.wake()
        thread.join()
        server.close()
