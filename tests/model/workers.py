"""The workers in plain Python: they register, beat, leave and are declared dead. And the switch they obey."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from schema.errors import SwitchLockedError
from schema.queue.workers import Beat, Registration
from tests.model.rows import Session
from tests.model.tables import Order, Switch, Worker

SESSION_GRACE = timedelta(seconds=2)
HANGS_AFTER = timedelta(minutes=10)
PRUNED_AFTER = timedelta(days=1)


class Workers(Session):
    """What one session sees of the workers, and does to them."""

    def register(self, worker_id: str, slots: int, lease_seconds: float) -> Registration:
        self.write(Worker(worker_id, slots, lease_seconds, heartbeat_at=self.now, oldest_claim_at=self.now))
        return Registration(worker_id, self.now)

    def is_alive(self, worker_id: str) -> bool:
        worker: Worker | None = self.find(worker_id)
        return worker is not None and worker.dead_at is None

    def is_in_charge(self, worker_id: str) -> bool:
        """Tell whether orders that run alone are this worker's to wait for."""
        may_be = [
            worker
            for worker in self.rows(Worker)
            if worker.dead_at is None and worker.oldest_claim_at > self.now - HANGS_AFTER
        ]
        first = min(may_be, key=lambda worker: (worker.slots, worker.worker_id), default=None)
        return first is not None and first.worker_id == worker_id

    def hold_session(self, worker_id: str) -> bool:
        worker: Worker = self.find(worker_id)
        holds = self.database.session_locks.setdefault(worker_id, self) is self
        if holds and self.take(worker):
            self.write(worker._replace(shows_session=True, session_lost_at=None))
        return holds

    def beat(self, worker_id: str, *, held: Sequence[UUID], oldest_claim_at: datetime) -> Beat:
        worker: Worker | None = self.find(worker_id)
        renewed = worker is not None and worker.dead_at is None and self.take(worker)
        if worker is not None and renewed:
            self.write(
                worker._replace(
                    heartbeat_at=self.now,
                    oldest_claim_at=max(worker.oldest_claim_at, oldest_claim_at),
                    session_lost_at=None,
                )
            )
        asked = {
            order.order_id
            for order in self.rows(Order)
            if order.order_id in held and order.worker_id == worker_id and order.cancel_requested_at
        }
        return Beat(alive=self.is_alive(worker_id), renewed=renewed, cancel_requested=frozenset(asked))

    def leave(self, worker_id: str) -> None:
        worker: Worker | None = self.find(worker_id)
        if worker is not None and self.take(worker):
            self.write(worker._replace(dead_at=worker.dead_at or self.now))

    def declare_dead(self, *, watched_seconds: float, running_seconds: float = math.inf) -> list[str]:
        up_seconds = (self.now - self.database.server_started_at).total_seconds()
        dead = []
        for worker in self.rows(Worker):
            lease_over = (
                worker.lease_seconds < running_seconds and worker.heartbeat_at + worker.lease < self.now
            )
            lost = worker.shows_session and worker.worker_id not in self.database.session_locks
            if worker.dead_at is not None or not worker.lease_seconds < min(watched_seconds, up_seconds):
                continue
            if not (lease_over or lost) or not self.take(worker):
                continue
            seen_lost_at = worker.session_lost_at or self.now
            is_dead = lease_over or self.now - seen_lost_at >= SESSION_GRACE
            self.write(worker._replace(session_lost_at=seen_lost_at, dead_at=self.now if is_dead else None))
            dead += [worker.worker_id] if is_dead else []
        return sorted(dead)

    def prune(self) -> int:
        old = [
            worker
            for worker in self.rows(Worker)
            if worker.swept_at and worker.swept_at < self.now - PRUNED_AFTER and self.take(worker)
        ]
        for worker in old:
            self.delete(worker)
        return len(old)

    @property
    def paused_at(self) -> datetime | None:
        """When claiming was stopped. Without the switch's row nothing stops it."""
        switch: Switch | None = self.find(Switch().key)
        return switch.paused_at if switch is not None else None

    def pause(self) -> None:
        self.switch(paused_at=self.paused_at or self.now)

    def resume(self) -> None:
        self.switch(paused_at=None)

    def switch(self, *, paused_at: datetime | None) -> None:
        if not self.take(Switch()):
            raise SwitchLockedError
        self.write(Switch(paused_at=paused_at))
