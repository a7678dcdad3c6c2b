"""The dispatcher's connection: opened when it is needed, and again after every loss."""

import random
import time
from collections.abc import Callable

from schema.runtime import logs
from schema.runtime.connection import Connection
from schema.runtime.watchdog import Watchdog

PAUSE_SECONDS = 0.1
PAUSE_CEILING_SECONDS = 2.0

_log = logs.Log(__name__)


class Link:
    """Keeps one connection; after a loss the pauses between tries grow up to two seconds.

    `retry_at` is when to try again, on the clock of `time.monotonic()`; `broken` until a try succeeds.
    `watchdog` is expected with each use and beats with each success.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._connection: Connection | None = None
        self._failures = 0
        self.retry_at = 0.0
        self.watchdog = Watchdog(clock=clock)

    @property
    def broken(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def connection(self) -> Connection:
        """Return the connection, opening one if need be."""
        self.watchdog.expect(when=True)
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def lose(self, error: Exception) -> None:
        """Drop the connection after a failure."""
        if not self.broken:
            _log.warning("database_lost", error=error)
        self.watchdog.fail(error)
        self.close()
        pause = min(PAUSE_SECONDS * 2.0**self._failures, PAUSE_CEILING_SECONDS)
        self.retry_at = self._clock() + pause * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._failures = min(self._failures + 1, 10)

    def recover(self) -> None:
        """Take note of a success."""
        if self.broken:
            _log.info("database_back")
        self.watchdog.beat()
        self._failures = 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
