"""The work after an order's commit, in a thread of its own, so that no request waits for it."""

import threading
import time
from typing import Self

import psycopg

from schema.queue import tally, wake
from schema.runtime import logs
from schema.runtime.connection import Connection

_PAUSE_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_FOLD_SECONDS = 1.0
_STOP_SECONDS = 2.0

_log = logs.Log(__name__)


class Notifier:
    """Wakes the workers with one notification at a time; requests meanwhile share the next. Folds the tally.

    A lost wake-up delays an order by at most one poll of the workers. So a failure is only logged.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._connection: Connection | None = None
        self._failing = False
        self._fold_at = 0.0
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread. The workers' poll makes up for a wake-up that was not sent."""
        self._stopped.set()
        self._wanted.set()
        self._thread.join(_STOP_SECONDS)

    def notify(self) -> None:
        """Request a wake-up; return at once."""
        self._wanted.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if self._send():
                # Under load no worker sleeps: a hundred wake-ups a second are enough.
                self._stopped.wait(_PAUSE_SECONDS)
            else:
                self._wanted.set()
                self._stopped.wait(_RETRY_SECONDS)
        self._disconnect()

    def _send(self) -> bool:
        try:
            if self._connection is None:
                self._connection = Connection.open(self._url, name="orders-api wake-up")
            wake.notify(self._connection)
            self._fold(self._connection)
        except Exception as error:  # noqa: BLE001 - after any error the next wake-up tries again
            self._disconnect()
            if not self._failing:
                _log.warning("wake_up_failed", error=error)
            self._failing = True
            return False
        self._failing = False
        return True

    def _fold(self, connection: Connection) -> None:
        """Fold the tally at most once a second. The workers do it too, but there may be none."""
        if time.monotonic() < self._fold_at:
            return
        self._fold_at = time.monotonic() + _FOLD_SECONDS
        try:
            tally.fold(connection)
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise
            _log.warning("fold_failed", error=error)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
