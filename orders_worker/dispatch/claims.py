"""The claims that this worker holds, as its dispatcher knows them and its heartbeat reports them."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from orders_worker.attempt.attempt import Attempt
from schema.order import Fence
from schema.queue.workers import Registration


@dataclass(frozen=True, slots=True)
class Holding:
    """The claims of one moment.

    Every claim of `worker_id`, even one whose answer has not arrived, was made at `oldest_claim_at` or later.
    """

    worker_id: str
    order_ids: list[UUID]
    oldest_claim_at: datetime


class Claims:
    """Changed by the dispatcher's thread alone, but for `declare_dead`; read by any.

    `since` is the database's time of the last exchange whose answer arrived.
    """

    def __init__(self, registration: Registration) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[Fence, Attempt] = {}
        self.worker_id = registration.worker_id
        self.since = registration.at
        self._dead_id = ""

    def __len__(self) -> int:
        return len(self._attempts)

    def __getitem__(self, fence: Fence) -> Attempt:
        return self._attempts[fence]

    def take(self, attempts: Iterable[Attempt], *, at: datetime) -> None:
        """Add what an exchange claimed that the database dated `at`."""
        with self._lock:
            self._attempts.update((attempt.fence, attempt) for attempt in attempts)
            self.since = at

    def drop(self, fences: Iterable[Fence]) -> None:
        """Remove claims whose end is written, or that are lost."""
        with self._lock:
            for fence in fences:
                self._attempts.pop(fence, None)

    def renew(self, registration: Registration) -> list[Attempt]:
        """Go on under a new id with no claims; return the attempts that were under way."""
        with self._lock:
            dropped = list(self._attempts.values())
            self._attempts.clear()
            self.worker_id = registration.worker_id
            self.since = registration.at
        return dropped

    @property
    def dead(self) -> bool:
        """Whether the database has declared this worker dead: it has to go on under another id."""
        return self._dead_id == self.worker_id

    def declare_dead(self, worker_id: str) -> None:
        """Record from any thread that the database has declared `worker_id` dead."""
        self._dead_id = worker_id

    def holding(self) -> Holding:
        """Return what the heartbeat reports."""
        with self._lock:
            claims = [attempt.claim for attempt in self._attempts.values()]
            oldest = min((claim.started_at for claim in claims), default=self.since)
            return Holding(self.worker_id, [claim.order_id for claim in claims], min(oldest, self.since))

    def request_cancel(self, order_ids: frozenset[UUID]) -> None:
        """Let the handlers of these orders know that a cancel was asked for."""
        with self._lock:
            attempts = [a for a in self._attempts.values() if a.claim.order_id in order_ids]
        for attempt in attempts:
            attempt.context.cancel_requested = True
