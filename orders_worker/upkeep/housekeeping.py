"""Housekeeping: the thread that does the chores and hears the wake-ups."""

import functools
import time
from collections.abc import Callable

from orders_worker.upkeep.chores import Chores
from schema.errors import DatabaseFullError
from schema.queue import wake
from schema.runtime import logs
from schema.runtime.connection import REPLY_SECONDS, Connection, statement_timeout_seconds
from schema.runtime.loop import Loop
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.waker import Waker

RETRY_SECONDS = 1.0

_log = logs.Log(__name__)


class Housekeeping:
    """Has a connection of its own, which also receives the wake-ups.

    Calls `on_orders` when there may be something to claim; `worker_id` returns the present id, for the log.
    """

    def __init__(self, url: str, *, on_orders: Callable[[], None], worker_id: Callable[[], str]) -> None:
        self._on_orders = on_orders
        self._worker_id = worker_id
        self._chores = Chores(on_orders)
        self.watchdog, self.schema = self._chores.watchdog, self._chores.schema
        self._prepared: Connection | None = None
        self._warned = False
        self._tick_at = 0.0
        connect = functools.partial(Connection.open, url, name="orders-housekeeping")
        self._database = Reconnecting(connect, name="housekeeping", ceiling_seconds=RETRY_SECONDS)
        self.loop = Loop(
            "orders-housekeeping",
            self._turn,
            failed=self._failed,
            ended=self._database.close,
            pause=Waker(lambda: self._database.current),
        )

    def _turn(self) -> float:
        logs.bind(worker_id=self._worker_id())
        connection = self._database.connection()
        if connection is not self._prepared:
            self._prepare(connection)
        if time.monotonic() >= self._tick_at:
            self._tick_at = time.monotonic() + self._chores.tick(connection)
        # After the tick: a notification that comes during a statement does not end the pause.
        if connection.notified():
            self._on_orders()
        self._database.succeeded()
        return self._tick_at - time.monotonic()

    def _failed(self, error: Exception) -> float:
        if not isinstance(error, DatabaseFullError):
            self._chores.detector.blind()
        self.watchdog.fail(error)
        return self._database.failed(error)

    def _prepare(self, connection: Connection) -> None:
        """Listen. Orders may have come while there was no connection, and the server may be another one."""
        if connection.direct:
            wake.listen(connection)
        elif not self._warned:
            self._warned = True
            _warn_of_the_pooler(connection)
        self._chores.schema_check.due_at = 0.0
        self._on_orders()
        self._prepared = connection


def _warn_of_the_pooler(connection: Connection) -> None:
    """Log what does not work through a pooler, and what an administrator has to do instead of us."""
    _log.warning("no_wake_up_behind_a_pooler")
    if not 0 < statement_timeout_seconds(connection) <= 2 * REPLY_SECONDS:
        _log.warning("statement_timeout_unset_behind_a_pooler", wanted_seconds=round(2 * REPLY_SECONDS))
