"""The monitor: checks the worker's health every second, logs each change, and answers probes meanwhile."""

import threading
import time
from collections.abc import Callable

from orders_worker.health.probes import Probes
from orders_worker.health.reasons import Health
from schema.runtime import logs
from schema.runtime.waker import Waker

LOOK_SECONDS = 1.0
STEADY_SECONDS = 1.0
"""How long a state must last before it is logged: when a fault ends, the threads recover one by one."""

_log = logs.Log(__name__)


class Monitor:
    """Runs in a thread of its own, so that it can report that any other stalls.

    `worker_id` returns the present id, which is another one after the database has declared the last dead.
    """

    def __init__(self, health: Health, *, probes: Probes | None, worker_id: Callable[[], str]) -> None:
        self._health = health
        self._probes = probes
        self._worker_id = worker_id
        self._waker = Waker()
        self._stopped = False
        self._told: list[str] = []
        self._seen: list[str] = []
        self._seen_at = 0.0
        self._thread = threading.Thread(target=self._run, name="orders-monitor", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._probes is not None:
            _log.info("health_served", url=self._probes.url)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; probes are refused from now on."""
        self._stopped = True
        self._waker.wake()
        if self._probes is not None:
            self._probes.wake()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped:
            logs.bind(worker_id=self._worker_id())
            try:
                self._look()
                self._wait()
            except Exception as error:  # noqa: BLE001 - whatever it is, the monitor goes on
                _log.error("monitor_failed", error=error)
                self._waker.wait(LOOK_SECONDS, connection=None)
        self._waker.close()
        if self._probes is not None:
            self._probes.close()

    def _look(self) -> None:
        reasons = self._health.reasons()
        names = [each.name for each in reasons]
        if names != self._seen:
            self._seen, self._seen_at = names, time.monotonic()
        if names == self._told or time.monotonic() - self._seen_at < STEADY_SECONDS:
            return
        self._told = names
        if names:
            detail = "; ".join(each.detail_and_error for each in reasons)
            _log.error("worker_unhealthy", reasons=",".join(names), detail=detail)
        else:
            _log.info("worker_healthy")

    def _wait(self) -> None:
        if self._probes is None:
            self._waker.wait(LOOK_SECONDS, connection=None)
        else:
            self._probes.serve(LOOK_SECONDS)
