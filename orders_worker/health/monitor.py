"""The monitor: checks the worker's health every second, logs each change, and answers probes meanwhile."""

import time
from collections.abc import Callable

from orders_worker.health.probes import Probes
from orders_worker.health.reasons import Health, Reason
from schema.runtime import logs
from schema.runtime.loop import Loop
from schema.runtime.waker import Waker

CHECK_SECONDS = 1.0

STEADY_SECONDS = 1.0
"""How long a state must last before it is logged: when a fault ends, the threads recover one by one."""

_log = logs.Log(__name__)


class Monitor:
    """Runs in a thread of its own, so that it can report that any other stalls.

    `worker_id` returns the present id, which changes after the database has declared the worker dead.
    """

    def __init__(self, health: Health, *, probes: Probes | None, worker_id: Callable[[], str]) -> None:
        self._health = health
        self._worker_id = worker_id
        self._logged: list[str] = []
        self._seen: list[str] = []
        self._seen_at = 0.0
        self.loop = Loop("orders-monitor", self._turn, failed=_failed, pause=probes or Waker())

    def _turn(self) -> float:
        logs.bind(worker_id=self._worker_id())
        reasons = self._health.reasons()
        names = [each.name for each in reasons]
        if names != self._seen:
            self._seen, self._seen_at = names, time.monotonic()
        if names != self._logged and time.monotonic() - self._seen_at >= STEADY_SECONDS:
            self._logged = names
            _report(reasons)
        return CHECK_SECONDS


def _report(reasons: list[Reason]) -> None:
    if not reasons:
        _log.info("worker_healthy")
        return
    detail = "; ".join(each.detail_and_error for each in reasons)
    _log.error("worker_unhealthy", reasons=",".join(each.name for each in reasons), detail=detail)


def _failed(error: Exception) -> float:
    _log.error("monitor_failed", error=error)
    return CHECK_SECONDS
