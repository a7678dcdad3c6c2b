"""The heartbeat: renews the worker's lease from a thread and a connection of its own."""

import functools
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

    Calls `on_death` when the database has declared the worker dead; it goes on under another id.
    `watchdog` is beaten when the lease was renewed.
    """

    def __init__(
        self, claims: Claims, url: str, *, lease_seconds: float, on_death: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._interval = lease_seconds / 3
        self._on_death = on_death
        self._worker_id = ""
        self._holder: Connection | None = None
        self.watchdog = Watchdog(patience_seconds=self._interval + LATE_SECONDS)
        connect = functools.partial(Connection.open, url, name="orders-heartbeat", reply_seconds=3)
        self._database = Reconnecting(connect, name="heartbeat", ceiling_seconds=RETRY_SECONDS)
        self.loop = Loop(
            "orders-heartbeat",
            self._turn,
            failed=self._failed,
            ended=self._database.close,
            pause=Waker(lambda: self._database.current),
        )

    def _turn(self) -> float:
        """Renew the lease. When that or the session lock can't be had yet, try again soon."""
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
        self._database.succeeded()
        if beat.renewed and (connection is self._holder or not connection.direct):
            return self._interval
        return min(self._interval, RETRY_SECONDS)

    def _failed(self, error: Exception) -> float:
        self.watchdog.fail(error)
        return self._database.failed(error)

    def _session(self, worker_id: str) -> Connection:
        """Return a connection that holds the session lock of `worker_id`, if it can hold one."""
        if worker_id != self._worker_id:
            self._database.close()
            self._worker_id = worker_id
        connection = self._database.connection()
        if (
            connection.direct
            and connection is not self._holder
            and workers.hold_session(connection, worker_id)
        ):
            self._holder = connection
        return connection
