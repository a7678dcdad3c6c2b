"""The rows of the queue's tables, column by column as far as a call changes what they hold."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from schema.states import Status

LAST_ATTEMPT = 1_000_000


class Order(NamedTuple):
    order_id: UUID
    seq: int
    created_at: datetime
    queued_at: datetime
    status: str = Status.PENDING
    attempt: int = 0
    attempt_limit: int | None = None
    worker_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    retry_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    last_error: str | None = None
    rescues: int | None = None

    @property
    def key(self) -> UUID:
        return self.order_id

    @property
    def runs_alone(self) -> bool:
        return (self.rescues or 0) >= 2

    @property
    def claim(self) -> tuple[UUID, int, str, int, datetime, datetime]:
        """What `attempts` keeps of a claim."""
        assert self.worker_id is not None
        assert self.started_at is not None
        return self.order_id, self.attempt, self.worker_id, self.seq, self.queued_at, self.started_at

    @property
    def last_attempt(self) -> int:
        return min(LAST_ATTEMPT if self.attempt_limit is None else self.attempt_limit, LAST_ATTEMPT)


class Attempt(NamedTuple):
    """An attempt that did not complete its order, with the place in line that it was claimed from."""

    order_id: UUID
    attempt: int
    worker_id: str
    seq: int
    queued_at: datetime
    started_at: datetime
    ended_at: datetime
    outcome: str
    error: str | None

    @property
    def key(self) -> tuple[UUID, int]:
        return self.order_id, self.attempt


class Worker(NamedTuple):
    worker_id: str
    slots: int
    lease_seconds: float
    heartbeat_at: datetime
    oldest_claim_at: datetime
    shows_session: bool = False
    session_lost_at: datetime | None = None
    dead_at: datetime | None = None
    swept_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.worker_id

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    def may_have_claimed(self, order: Order) -> bool:
        """Tell whether the order is one of this dead worker's, from its first to its last possible claim."""
        assert self.dead_at is not None
        return (
            order.worker_id == self.worker_id
            and order.status == Status.PROCESSING
            and order.started_at is not None
            and self.oldest_claim_at <= order.started_at <= self.dead_at + 2 * self.lease
        )


class Switch(NamedTuple):
    only_row: bool = True
    paused_at: datetime | None = None

    @property
    def key(self) -> bool:
        return self.only_row


class Entry(NamedTuple):
    """What a handler wrote for an order, in the transaction that completes it."""

    order_id: UUID
    attempt: int

    @property
    def key(self) -> tuple[str, UUID, int]:
        return "ledger", self.order_id, self.attempt


TABLES: dict[type[Any], str] = {
    Order: "orders",
    Attempt: "attempts",
    Worker: "workers",
    Switch: "queue",
    Entry: "ledger",
}
"""The table that the rows of each kind are in."""
