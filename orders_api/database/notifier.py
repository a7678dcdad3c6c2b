"""The work after an order's commit, in a thread of its own, so that no request waits for it."""

import functools
import time
from typing import Self

from schema.errors import DatabaseError
from schema.queue import tally, wake
from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.loop import Loop
from schema.runtime.reconnecting import Reconnecting
from schema.runtime.waker import Waker

PAUSE_SECONDS = 0.01
"""Pause after each wake-up. Under load no worker sleeps: a hundred wake-ups a second are plenty."""

IDLE_SECONDS = 3600.0
RETRY_SECONDS = 1.0
FOLD_SECONDS = 1.0
STOP_SECONDS = 2.0

_log = logs.Log(__name__)


class Notifier:
    """Wakes the workers with one notification at a time; requests meanwhile share the next. Folds the tally.

    A lost wake-up delays an order by at most one poll of the workers. So a failure is only logged.
    """

    def __init__(self, url: str) -> None:
        connect = functools.partial(Connection.open, url, name="orders-api wake-up")
        self._database = Reconnecting(connect, name="notifier", ceiling_seconds=RETRY_SECONDS)
        self._wanted = False
        self._fold_at = 0.0
        self._loop = Loop(
            "orders-notifier", self._turn, failed=self._failed, ended=self._database.close, pause=Waker()
        )

    def __enter__(self) -> Self:
        """Start the thread."""
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread. A wake-up that is not sent by now is left to the workers' poll."""
        self._loop.stop(STOP_SECONDS)

    def notify(self) -> None:
        """Ask for a wake-up; return at once."""
        self._wanted = True
        self._loop.wake()

    def _turn(self) -> float:
        if not self._wanted:
            return IDLE_SECONDS
        self._wanted = False
        connection = self._database.connection()
        wake.notify(connection)
        self._fold(connection)
        self._database.succeeded()
        time.sleep(PAUSE_SECONDS)
        return IDLE_SECONDS

    def _failed(self, error: Exception) -> float:
        self._wanted = True
        return self._database.failed(error)

    def _fold(self, connection: Connection) -> None:
        """Fold the tally at most once a second. The workers do it too, but there may be none."""
        if time.monotonic() < self._fold_at:
            return
        self._fold_at = time.monotonic() + FOLD_SECONDS
        try:
            tally.fold(connection)
        except DatabaseError as error:
            if connection.closed:
                raise
            _log.warning("fold_failed", error=error)
