"""The heartbeat: renews the worker's lease from a thread and a connection of its own."""

import threading
from collections.abc import Callable

from orders_worker.dispatch.claims import Claims
from schema.queue import workers
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.waker import Waker
from schema.runtime.watchdog import Watchdog

RETRY_SECONDS = 0.3
"""Pause between tries to connect: the session lock must be taken again within a second."""

OVERDUE_SECONDS = 3.0
"""How late a beat may be before somebody should know."""

_log = logs.Log(__name__)


class Heartbeat:
    """Beats three times a lease; holds the session lock that shows that the process lives.

    `on_death` is called with the worker's id when the database has declared it dead. `watchdog` beats when
    the lease was renewed.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        connect: Callable[[], Connection],
        lease_seconds: float,
        on_death: Callable[[str], None],
    ) -> None:
        self._claims = claims
        self._connect = connect
        self._interval = lease_seconds / 3
        self._on_death = on_death
        self._waker = Waker()
        self._stopped = False
        self._connection: Connection | None = None
        self._worker_id = ""
        self._session_held = False
        self.watchdog = Watchdog(patience_seconds=self._interval + OVERDUE_SECONDS)
        self._thread = threading.Thread(target=self._run, name="orders-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its session."""
        self._stopped = True
        self._waker.wake()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        well = True
        while not self._stopped:
            try:
                settled = self._beat() and self._session_held
                pause = self._interval if settled else min(self._interval, RETRY_SECONDS)
                well = _note(well, now=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next beat tries again
                well = _note(well, now=False, error=error)
                self.watchdog.fail(error)
                self._disconnect()
                pause = RETRY_SECONDS
            self._waker.wait(pause, connection=self._connection)
        self._disconnect()

    def _beat(self) -> bool:
        """Renew the lease; return whether that was possible. If the worker is dead, it has a new id soon."""
        held = self._claims.holding()
        logs.bind(worker_id=held.worker_id)
        connection = self._session(held.worker_id)
        beat = workers.beat(
            connection, held.worker_id, held=held.order_ids, oldest_claim_at=held.oldest_claim_at
        )
        if beat.renewed:
            self.watchdog.beat()
        if not beat.alive:
            self._on_death(held.worker_id)
        elif beat.cancel_requested:
            self._claims.request_cancel(beat.cancel_requested)
        return beat.renewed

    def _session(self, worker_id: str) -> Connection:
        """Return a connection that holds the session lock of `worker_id`, if it can hold one."""
        if worker_id != self._worker_id:
            self._disconnect()
            self._worker_id = worker_id
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._session_held = not self._connection.direct
        if not self._session_held:
            self._session_held = workers.hold_session(self._connection, worker_id)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _note(well: bool, *, now: bool, error: Exception | None = None) -> bool:  # noqa: FBT001 - a state
    """Log the change from well to ill and back, and return the new state."""
    if well and not now:
        _log.warning("heartbeat_lost", error=error)
    elif now and not well:
        _log.info("heartbeat_back")
    return now
