"""The queue in plain Python: what every call answers and what it leaves in the tables.

Each method is named like the function in `schema` whose statement it foretells. No statement waits for a
lock: `take` is False where somebody else has the row, and the row is passed over.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError, OrdersError
from schema.order import Claim, Fence
from schema.queue.completion import ClaimState
from schema.queue.endings import Ended, Ending
from schema.queue.exchange import Exchanged
from schema.queue.redrive import Failed
from schema.queue.rescue import Patrolled, Rescued
from schema.states import Outcome, Status
from tests.model.tables import LAST_ATTEMPT, Attempt, Order, Worker
from tests.model.workers import Workers

LAST_LIMIT = 2_147_483_647
WITHDRAWABLE = {Status.PENDING, Status.RETRYING, Status.PROCESSING}


class Queue(Workers):
    """The queue, as one session sees and moves it."""

    def submit(self, order_id: UUID) -> None:
        self.write(Order(order_id, next(self.database.tickets), created_at=self.now, queued_at=self.now))

    def exchange(
        self,
        worker_id: str,
        *,
        finished: Sequence[Fence],
        free: int,
        idle: bool | None,
        floor: int,
        since: datetime,
        max_attempts: int,
    ) -> Exchanged:
        state = {fence: self.claim_state(worker_id, fence=fence) for fence in finished}
        alive, paused = self.is_alive(worker_id), self.paused_at is not None
        line = self.in_line(floor) if alive and not paused else []
        may_claim = alive and not paused and free > 0 and idle is not None
        alone = self.next_alone(worker_id, idle=bool(idle)) if may_claim else None
        alone_waits = any(order.runs_alone for order in self.pending())
        busy = {fence for fence in finished if not self.complete(worker_id, fence=fence)}
        claimed: list[Claim] = []
        for order in line:
            if alone is not None and order.seq > alone.seq:
                break
            if len(claimed) < free and self.take(order):
                claimed.append(self.claim(order, worker_id, since=since, max_attempts=max_attempts))
        if alone is not None and idle and not claimed:
            claimed.append(self.claim(alone, worker_id, since=since, max_attempts=max_attempts))
        return Exchanged(
            claimed=claimed,
            busy={fence for fence in busy if state[fence] is ClaimState.HELD},
            lost={fence for fence in busy if state[fence] is ClaimState.LOST},
            alive=alive,
            paused=alive and paused,
            at=self.now,
            alone_waits=alone_waits,
        )

    def in_line(self, floor: int) -> list[Order]:
        """Return what any worker may claim, by ticket: below the floor only what came back."""
        return [
            order
            for order in self.pending()
            if (order.seq >= floor or order.attempt > 0) and not order.runs_alone
        ]

    def next_alone(self, worker_id: str, *, idle: bool) -> Order | None:
        """Return the order that this worker does not pass, for it is to run it alone."""
        if not idle and not self.is_in_charge(worker_id):
            return None
        return next((order for order in self.pending() if order.runs_alone and self.take(order)), None)

    def pending(self) -> list[Order]:
        """Return what is in line, by ticket."""
        pending = [order for order in self.rows(Order) if order.status == Status.PENDING]
        return sorted(pending, key=lambda order: order.seq)

    def claim(self, order: Order, worker_id: str, *, since: datetime, max_attempts: int) -> Claim:
        limit = order.attempt + max_attempts if order.attempt_limit is None else order.attempt_limit
        claimed = order._replace(
            status=Status.PROCESSING,
            worker_id=worker_id,
            attempt=order.attempt + 1,
            attempt_limit=limit,
            started_at=max(self.now, since),
        )
        self.write(claimed)
        return _claim(claimed)

    def recover_claims(self, worker_id: str, *, held: Sequence[UUID], since: datetime) -> list[Claim]:
        recover_claims = [
            order
            for order in self.rows(Order)
            if order.worker_id == worker_id
            and order.status == Status.PROCESSING
            and order.started_at is not None
            and order.started_at >= since
            and order.order_id not in held
        ]
        return [_claim(order) for order in sorted(recover_claims, key=lambda order: order.seq)]

    def held(self, worker_id: str, fence: Fence) -> Order | None:
        """Return the order if this worker, in this very attempt, works on it and nobody has its row."""
        order: Order | None = self.find(fence.order_id)
        if (
            self.claim_state(worker_id, fence=fence) is ClaimState.HELD
            and order is not None
            and self.take(order)
        ):
            return order
        return None

    def complete(self, worker_id: str, *, fence: Fence) -> bool:
        order = self.held(worker_id, fence)
        if order is not None:
            self.write(order._replace(status=Status.COMPLETED, finished_at=self.now))
        return order is not None

    def claim_state(self, worker_id: str, *, fence: Fence) -> ClaimState:
        order: Order | None = self.find(fence.order_id)
        if order is None or (order.attempt, order.worker_id) != (fence.attempt, worker_id):
            return ClaimState.LOST
        return {Status.PROCESSING: ClaimState.HELD, Status.COMPLETED: ClaimState.COMPLETED}.get(
            Status(order.status), ClaimState.LOST
        )

    def is_free(self, worker_id: str, *, fence: Fence) -> bool:
        return self.held(worker_id, fence) is not None

    def end(self, worker_id: str, *, endings: Sequence[Ending]) -> Ended:
        ended = Ended(busy=set(), lost=set(), failed=set())
        for ending in endings:
            state = self.claim_state(worker_id, fence=ending.fence)
            order = self.held(worker_id, ending.fence)
            if order is not None:
                status = self.move(order, ending.outcome, ending.error, retry_seconds=ending.retry_seconds)
                if status == Status.FAILED:
                    ended.failed.add(ending.fence)
            else:
                (ended.busy if state is ClaimState.HELD else ended.lost).add(ending.fence)
        return ended

    def move(
        self, order: Order, outcome: Outcome, error: str | None, *, retry_seconds: float = 0.0
    ) -> Status:
        """End an attempt that did not complete its order, and record it; return the order's next state."""
        assert order.worker_id is not None
        assert order.started_at is not None
        status = next_state(order, outcome)
        final = status in {Status.FAILED, Status.CANCELLED}
        limit = order.attempt_limit
        if outcome == Outcome.RELEASED and limit is not None:
            limit = min(max(limit, order.attempt), LAST_LIMIT - 1) + 1
        self.write(
            order._replace(
                status=status,
                worker_id=order.worker_id if final else None,
                started_at=order.started_at if final else None,
                finished_at=self.now if final else None,
                queued_at=self.now if status == Status.PENDING else order.queued_at,
                retry_at=self.now + timedelta(seconds=retry_seconds) if status == Status.RETRYING else None,
                attempt_limit=limit,
                last_error=order.last_error if error is None else error,
                rescues=_rescues(order, outcome),
            )
        )
        if self.find((order.order_id, order.attempt)) is None:
            self.write(Attempt(*order.claim, ended_at=self.now, outcome=outcome, error=error))
        return status

    def return_due(self) -> int:
        due = [
            order for order in self.rows(Order) if order.retry_at is not None and order.retry_at <= self.now
        ]
        taken = [order for order in due if self.take(order)]
        for order in taken:
            self.write(order._replace(status=Status.PENDING, queued_at=self.now, retry_at=None))
        return len(taken)

    def cancel(self, order_id: UUID) -> Status:
        order: Order | None = self.find(order_id)
        if order is None or order.status not in WITHDRAWABLE or not self.take(order):
            raise self.refusal(order_id, "cancel", movable=WITHDRAWABLE)
        asked_at = order.cancel_requested_at or self.now
        if order.status == Status.PROCESSING:
            self.write(order._replace(cancel_requested_at=asked_at))
            return Status.PROCESSING
        self.write(
            order._replace(
                status=Status.CANCELLED, finished_at=self.now, retry_at=None, cancel_requested_at=asked_at
            )
        )
        return Status.CANCELLED

    def redrive(self, order_id: UUID, *, attempts: int) -> None:
        order: Order | None = self.find(order_id)
        if (
            order is None
            or order.status != Status.FAILED
            or order.attempt >= LAST_ATTEMPT
            or not self.take(order)
        ):
            raise self.refusal(order_id, "redrive", movable={Status.FAILED})
        self.put_back_in_line(order, attempts=attempts)

    def find_failed(self, *, error_prefix: str | None) -> Failed:
        found = [
            order
            for order in self.failed_by(self.now)
            if error_prefix is None or (order.last_error or "").startswith(error_prefix)
        ]
        return Failed([order.order_id for order in found], at=self.now)

    def redrive_failed(self, failed: Failed, *, attempts: int) -> int:
        taken = [
            order
            for order in self.failed_by(failed.at)
            if order.order_id in failed.order_ids and order.attempt < LAST_ATTEMPT and self.take(order)
        ]
        for order in taken:
            self.put_back_in_line(order, attempts=attempts)
        return len(taken)

    def failed_by(self, moment: datetime) -> list[Order]:
        """Return what had failed by then, by ticket."""
        failed = [order for order in self.rows(Order) if order.status == Status.FAILED]
        return sorted(
            (order for order in failed if order.finished_at is not None and order.finished_at <= moment),
            key=lambda order: (order.seq, order.order_id),
        )

    def put_back_in_line(self, order: Order, *, attempts: int) -> None:
        self.write(
            Order(
                order.order_id,
                seq=next(self.database.tickets),
                created_at=order.created_at,
                queued_at=self.now,
                attempt=order.attempt,
                attempt_limit=order.attempt + attempts,
                last_error=order.last_error,
                rescues=order.rescues,
            )
        )

    def refusal(self, order_id: UUID, move: str, *, movable: set[Status]) -> OrdersError:
        order: Order | None = self.find(order_id)
        if order is None:
            return OrderNotFoundError(order_id)
        if order.status in movable:
            return OrderLockedError(order_id)
        return IllegalMoveError(order_id, move, status=order.status)

    def sweep(self) -> set[Rescued]:
        dead = [worker for worker in self.rows(Worker) if worker.dead_at and not worker.swept_at]
        return {
            rescued
            for worker in dead
            for order in self.rows(Order)
            if worker.may_have_claimed(order)
            for rescued in self.rescue(order, f"worker {worker.worker_id} died")
        }

    def fold(self) -> None:
        """Change nothing that can be counted."""

    def rescue(self, order: Order, error: str) -> list[Rescued]:
        if not self.take(order):
            return []
        return [Rescued(order.order_id, order.attempt, self.move(order, Outcome.RESCUED, error))]

    def mark_swept(self) -> None:
        for worker in self.rows(Worker):
            if worker.dead_at is None or worker.swept_at is not None:
                continue
            over = worker.dead_at + 2 * worker.lease < self.now
            if over and not any(map(worker.may_have_claimed, self.rows(Order))) and self.take(worker):
                self.write(worker._replace(swept_at=self.now))

    def patrol(self, *, after: datetime | None) -> Patrolled:
        page = {
            order: order.started_at
            for order in self.rows(Order)
            if order.started_at is not None and (after is None or order.started_at > after)
        }
        rescued = {
            rescued
            for order in page
            if order.status == Status.PROCESSING and not (order.worker_id and self.is_alive(order.worker_id))
            for rescued in self.rescue(order, f"worker {order.worker_id} is unknown")
        }
        return Patrolled(rescued, reached=max(page.values(), default=None))


def next_state(order: Order, outcome: Outcome) -> Status:
    """Return where an order goes from an attempt that did not complete it."""
    if outcome == Outcome.REJECTED:
        return Status.FAILED
    if order.cancel_requested_at is not None:
        return Status.CANCELLED
    if outcome == Outcome.RELEASED and order.attempt < LAST_ATTEMPT:
        return Status.PENDING
    if order.attempt >= order.last_attempt:
        return Status.FAILED
    return Status.PENDING if outcome == Outcome.RESCUED else Status.RETRYING


def _rescues(order: Order, outcome: Outcome) -> int | None:
    if outcome == Outcome.RESCUED:
        return (order.rescues or 0) + 1
    return order.rescues if outcome == Outcome.RELEASED else None


def _claim(order: Order) -> Claim:
    assert order.attempt_limit is not None
    assert order.started_at is not None
    return Claim(
        order.order_id,
        order.attempt,
        order.attempt_limit,
        order.seq,
        user_id="ada",
        item_ids=["tea"],
        total_amount=Decimal("1.00"),
        created_at=order.created_at,
        started_at=order.started_at,
        rescues=order.rescues or 0,
    )
