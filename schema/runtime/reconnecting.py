"""A connection that is opened when it is needed, and again after every loss."""

import random
import time
from collections.abc import Callable

from schema.runtime import logs
from schema.runtime.connection import Connection

FIRST_PAUSE_SECONDS = 0.1

_log = logs.Log(__name__)


class Reconnecting:
    """Keeps one connection. After failures the pauses between tries double up to `ceiling_seconds`.

    `current` is the connection, None while there is none. Logs the first failure, with the connection's
    `name`: `connection_lost`, or `statement_failed` if the server answered. Logs `connection_back` or
    `statements_succeed` at the first success after it.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        name: str,
        ceiling_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._name = name
        self._ceiling_seconds = ceiling_seconds
        self._clock = clock
        self.current: Connection | None = None
        self._failures = 0
        self._lost = False
        self.retry_at = 0.0

    @property
    def broken(self) -> bool:
        """Whether the last try failed. The next one should come at `retry_at`, on the given clock."""
        return self._failures > 0

    def connection(self) -> Connection:
        """Return the connection; open one if there is none or it is closed."""
        if self.current is None or self.current.closed:
            self.current = self._connect()
        return self.current

    def failed(self, error: Exception) -> float:
        """Close the connection after a failure; return how many seconds to pause before the next try."""
        if not self.broken:
            self._lost = self.current is None or self.current.closed
            if self._lost:
                _log.warning("connection_lost", connection=self._name, error=error)
            else:
                _log.warning("statement_failed", connection=self._name, error=error)
        self.close()
        doubled = min(FIRST_PAUSE_SECONDS * 2.0**self._failures, self._ceiling_seconds)
        pause = doubled * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self.retry_at = self._clock() + pause
        self._failures = min(self._failures + 1, 10)
        return pause

    def succeeded(self) -> None:
        """Record that the connection works."""
        if self.broken:
            _log.info("connection_back" if self._lost else "statements_succeed", connection=self._name)
        self._failures = 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.current is not None:
            self.current.close()
            self.current = None
