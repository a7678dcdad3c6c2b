"""The heartbeat: renews the worker's lease from a thread and a connection of its own."""

from collections.abc import Callable

from orders_worker.dispatch.claims import Claims
from schema.queue import workers
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.loop import Loop
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.waker import Waker
from schema.runtime.watchdog import Watchdog

RETRY_SECONDS = 0.3
"""Pause between tries: the session lock must be taken again within a second."""

LATE_SECONDS = 3.0
"""How late a beat may be before `watchdog` is overdue."""


class Heartbeat:
    """Beats three times a lease. Holds the session lock that shows that the process lives.

    Calls `on_death` when the database has declared the worker dead. `watchdog` is beaten when the lease was
    renewed.
    """

    def __init__(
        self, claims: Claims, url: str, *, lease_seconds: float, on_death: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._url = url
        self._interval = lease_seconds / 3
        self._on_death = on_death
        self._worker_id = ""
        self._session_held = False
        self.watchdog = Watchdog(patience_seconds=self._interval + LATE_SECONDS)
        self._database = Reconnecting(
            self._opened, name="heartbeat", ceiling_seconds=RETRY_SECONDS, watchdog=self.watchdog
        )
        self.loop = Loop(
            "orders-heartbeat",
            self._turn,
            failed=self._database.failed,
            ended=self._database.close,
            pause=Waker(lambda: self._database.current),
        )

    def _turn(self) -> float:
        settled = self._beat() and self._session_held
        self._database.succeeded()
        return self._interval if settled else min(self._interval, RETRY_SECONDS)

    def _beat(self) -> bool:
        """Renew the lease; return whether that was possible. A worker declared dead soon has a new id."""
        held = self._claims.holding()
        logs.bind(worker_id=held.worker_id)
        connection = self._session(held.worker_id)
        beat = workers.beat(
            connection, held.worker_id, held=held.order_ids, oldest_claim_at=held.oldest_claim_at
        )
        if beat.renewed:
            self.watchdog.beat()
        if not beat.alive:
            self._claims.declare_dead(held.worker_id)
            self._on_death()
        elif beat.cancel_requested:
            self._claims.request_cancel(beat.cancel_requested)
        return beat.renewed

    def _session(self, worker_id: str) -> Connection:
        """Return a connection that holds the session lock of `worker_id`, if it can hold one."""
        if worker_id != self._worker_id:
            self._database.close()
            self._worker_id = worker_id
        connection = self._database.connection()
        if not self._session_held:
            self._session_held = workers.hold_session(connection, worker_id)
        return connection

    def _opened(self) -> Connection:
        connection = Connection.open(self._url, name="orders-heartbeat", reply_seconds=3)
        self._session_held = not connection.direct
        return connection
