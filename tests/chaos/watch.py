"""What is looked at while everything runs: whether the server commits, and whether the sums agree."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

PULSE_SECONDS = 0.1
SLOW_SECONDS = 0.3
SUMS_SECONDS = 1.0

Connect = Callable[[], psycopg.Connection[Any]]


class Watch:
    """A thread that repeats one look at the database, on a connection that it opens anew when it breaks.

    `failures` says if it died.
    """

    def __init__(self, connect: Connect, *, seconds: float) -> None:
        self._connect = connect
        self._seconds = seconds
        self._over = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._watch, name=type(self).__name__, daemon=True)
        self.failures: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._over.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def look(self, connection: psycopg.Connection[Any]) -> None:
        """Look once."""
        raise NotImplementedError

    def note(self, began_at: float, *, well: bool) -> None:
        """Take note of how a look went that began then."""

    def rest(self, took: float) -> float:  # noqa: ARG002 - for those that a slow look makes rarer
        """Return the seconds to wait after a look that took so long."""
        return self._seconds

    def _watch(self) -> None:
        try:
            self._look_on()
        except Exception as error:  # noqa: BLE001 - a watch that fails is the harness's own failure
            self.failures.append(f"{type(self).__name__} died: {type(error).__name__}: {error}")

    def _look_on(self) -> None:
        while not self._over.is_set():
            began_at = time.time()
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._connect()
                self.look(self._connection)
                self.note(began_at, well=True)
            except psycopg.OperationalError:
                self.note(began_at, well=False)
            self._over.wait(self.rest(time.time() - began_at))


class Pulse(Watch):
    """Commits all the time. `away` are the times, from and to, when the server was slow in that or gone."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect, seconds=PULSE_SECONDS)
        # A server that has just begun counts as one that has just come back.
        self.away = [(time.time(), time.time())]
        self._away_since: float | None = None

    def look(self, connection: psycopg.Connection[Any]) -> None:
        """Commit once."""
        connection.execute("UPDATE pulse SET at = clock_timestamp()")

    def note(self, began_at: float, *, well: bool) -> None:
        """Keep the time until the next commit that went well, if it took long."""
        if self._away_since is None:
            self._away_since = began_at
        if well:
            if time.time() - self._away_since > SLOW_SECONDS:
                self.away.append((self._away_since, time.time()))
            self._away_since = None


class Sums(Watch):
    """Compares, in one snapshot, the ledger's sum with the sum of the orders that are done with it."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect, seconds=SUMS_SECONDS)
        self.differences: list[str] = []
        self.looks = 0

    def close(self) -> None:
        """End; it is a failure to have never compared."""
        super().close()
        if not self.looks:
            self.failures.append("the sums were never compared")

    def rest(self, took: float) -> float:
        """Look less often if it takes long: it must not become the load."""
        return max(SUMS_SECONDS, 10 * took)

    def look(self, connection: psycopg.Connection[Any]) -> None:
        """Compare once."""
        row = connection.execute(_SUMS).fetchone()
        assert row is not None
        self.looks += 1
        if row[0] != row[1]:
            self.differences.append(f"the ledger has {row[0]}, the completed orders {row[1]}")


_SUMS = """
SELECT (SELECT COALESCE(sum(amount), 0) FROM ledger),
       (SELECT COALESCE(sum(total_amount), 0)
        FROM orders
        WHERE status = 'completed'
          AND item_ids[3] = 'ledger')
"""
