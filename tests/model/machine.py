"""Random lives of the queue. Orders and claims are never forgotten, so that zombies use them late.

In each session a transaction may be open: then what a call writes stays uncommitted, and the rows locked,
while the other session goes on.
"""

from collections.abc import Hashable
from datetime import datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, initialize, multiple, rule

from schema import cancel, completion, exchange, orders, pause, redrive, rescue, retries, unfinished, workers
from schema.exchange import Fence
from schema.orders import NewOrder
from schema.states import Outcome, Status
from schema.unfinished import Ending
from tests.model.agreement import Agreement
from tests.model.database import SESSIONS, START, RealQueue, disconnect
from tests.model.queue import Queue
from tests.model.tables import Entry, Switch

LEASE_SECONDS = 10.0
LONG_AGO = START - timedelta(days=1000)

ORDERS = Bundle("orders")
WORKERS = Bundle("workers")
CLAIMS = Bundle("claims")
"""(worker, fence) of each claim that was ever made."""

FENCES = CLAIMS.map(itemgetter(1))
ENDINGS = st.builds(
    Ending, FENCES, st.sampled_from(Outcome), st.sampled_from([None, "it broke"]), st.sampled_from([0.0, 5.0])
)
PATIENCE = st.sampled_from([float("inf"), LEASE_SECONDS, LEASE_SECONDS + 0.5])
MOMENTS = st.sampled_from(["long ago", "last exchange", "now"])
sessions = st.sampled_from(SESSIONS)


class QueueMachine(Agreement):
    """Everything that workers, housekeeping, people and misfortune do to a few orders."""

    def __init__(self, real: RealQueue) -> None:
        super().__init__(real)
        self.last_exchange: dict[str, datetime] = {}

    def moment(self, which: str, worker_id: str) -> datetime:
        last = self.last_exchange.get(worker_id, LONG_AGO)
        return {"long ago": LONG_AGO, "last exchange": last, "now": self.database.now}[which]

    # Arrivals

    @initialize(target=ORDERS)
    def first_orders(self) -> MultipleResults[UUID]:
        return multiple(self.submit(SESSIONS[0]), self.submit(SESSIONS[0]))

    @initialize(target=WORKERS)
    def first_worker(self) -> str:
        return self.register(SESSIONS[0])

    @rule(target=ORDERS, at=sessions)
    def submit(self, at: str) -> UUID:
        order_id = orders.submit(self.real.sessions[at], NewOrder("ada", ("tea",), Decimal(1)))
        self.foretell(at, Queue.submit, order_id)
        return order_id

    @rule(target=WORKERS, at=sessions)
    def register(self, at: str) -> str:
        registration = workers.register(
            self.real.sessions[at], host="", pid=1, slots=1, lease_seconds=LEASE_SECONDS
        )
        assert registration == self.foretell(at, Queue.register, registration.worker_id, LEASE_SECONDS)
        return registration.worker_id

    # A worker, alive or dead

    @rule(
        target=CLAIMS,
        at=sessions,
        worker_id=WORKERS,
        finished=st.lists(FENCES, max_size=3, unique=True),
        free=st.integers(0, 3),
        floor=st.integers(0, 5),
        max_attempts=st.integers(1, 3),
    )
    def exchange(self, at: str, worker_id: str, **wanted: Any) -> MultipleResults[tuple[str, Fence]]:
        since = self.moment("last exchange", worker_id)
        exchanged = self.agree(at, exchange.exchange, Queue.exchange, worker_id, since=since, **wanted)
        self.last_exchange[worker_id] = exchanged.at
        return multiple(*[(worker_id, claim.fence) for claim in exchanged.claimed])

    @rule(at=sessions, worker_id=WORKERS, held=st.lists(ORDERS, max_size=2), since=MOMENTS)
    def strays(self, at: str, worker_id: str, held: list[UUID], since: str) -> None:
        moment = self.moment(since, worker_id)
        self.agree(at, exchange.strays, Queue.strays, worker_id, held=held, since=moment)

    @rule(
        at=sessions,
        worker_id=WORKERS,
        endings=st.lists(ENDINGS, min_size=1, max_size=3, unique_by=lambda ending: ending.fence),
    )
    def end(self, at: str, worker_id: str, endings: list[Ending]) -> None:
        self.agree(at, unfinished.end, Queue.end, worker_id, endings=endings)

    @rule(at=sessions, worker_id=WORKERS, fence=FENCES)
    def complete(self, at: str, worker_id: str, fence: Fence) -> None:
        """Let a handler write and complete in a transaction, which stays open for a while."""
        if self.models[at].open:
            return
        self.begin(at)
        self.real.sessions[at].execute("INSERT INTO ledger VALUES (%s, %s)", fence)
        self.models[at].write(Entry(*fence))
        if not self.agree(at, completion.complete, Queue.complete, worker_id, fence=fence):
            self.disconnect(at)

    @rule(at=sessions, worker_id=WORKERS, fence=FENCES)
    def standing(self, at: str, worker_id: str, fence: Fence) -> None:
        self.agree(at, completion.standing, Queue.standing, worker_id, fence=fence)

    @rule(at=sessions, worker_id=WORKERS, fence=FENCES)
    def is_free(self, at: str, worker_id: str, fence: Fence) -> None:
        self.agree(at, completion.is_free, Queue.is_free, worker_id, fence=fence)

    @rule(at=sessions, worker_id=WORKERS, held=st.lists(ORDERS, max_size=2), oldest=MOMENTS)
    def beat(self, at: str, worker_id: str, held: list[UUID], oldest: str) -> None:
        moment = self.moment(oldest, worker_id)
        self.agree(at, workers.beat, Queue.beat, worker_id, held=held, oldest_claim_at=moment)

    @rule(at=sessions, worker_id=WORKERS)
    def hold_session(self, at: str, worker_id: str) -> None:
        if self.can_take(at, worker_id):
            self.agree(at, workers.hold_session, Queue.hold_session, worker_id)

    @rule(at=sessions, worker_id=WORKERS)
    def leave(self, at: str, worker_id: str) -> None:
        if self.can_take(at, worker_id):
            self.agree(at, workers.leave, Queue.leave, worker_id)

    # Housekeeping

    @rule(at=sessions)
    def return_due(self, at: str) -> None:
        self.agree(at, retries.return_due, Queue.return_due)

    @rule(at=sessions, watched=PATIENCE, running=PATIENCE)
    def declare_dead(self, at: str, watched: float, running: float) -> None:
        self.agree(at, _declare_dead, Queue.declare_dead, watched_seconds=watched, running_seconds=running)

    @rule(at=sessions)
    def sweep(self, at: str) -> None:
        self.agree(at, rescue.sweep, Queue.sweep)

    @rule(at=sessions)
    def mark_swept(self, at: str) -> None:
        self.agree(at, rescue.mark_swept, Queue.mark_swept)

    @rule(at=sessions, after=st.sampled_from([None, LONG_AGO, START]))
    def patrol(self, at: str, after: datetime | None) -> None:
        self.agree(at, rescue.patrol, Queue.patrol, after=after)

    @rule(at=sessions)
    def prune(self, at: str) -> None:
        self.agree(at, workers.prune, Queue.prune)

    # People

    @rule(at=sessions, order_id=ORDERS)
    def cancel(self, at: str, order_id: UUID) -> None:
        self.agree(at, cancel.cancel, Queue.cancel, order_id)

    @rule(at=sessions, order_id=ORDERS, attempts=st.integers(1, 2))
    def redrive(self, at: str, order_id: UUID, attempts: int) -> None:
        self.agree(at, redrive.redrive, Queue.redrive, order_id, attempts=attempts)

    @rule(at=sessions)
    def pause(self, at: str) -> None:
        self.agree(at, pause.pause, Queue.pause)

    @rule(at=sessions)
    def resume(self, at: str) -> None:
        self.agree(at, pause.resume, Queue.resume)

    @rule(at=sessions, order_id=ORDERS)
    def refer(self, at: str, order_id: UUID) -> None:
        """Lock an order as a row with a foreign key to it does, which is in no statement's way."""
        self.real.sessions[at].execute("SELECT FROM orders WHERE order_id = %s FOR KEY SHARE", (order_id,))

    @rule(at=sessions, key=ORDERS | WORKERS | st.just(Switch().key))
    def lock(self, at: str, key: Hashable) -> None:
        """Lock a row by hand, as in a psql that is left alone."""
        if self.can_take(at, key):
            row = self.models[at].find(key)
            self.real.sessions[at].execute(
                f"SELECT FROM {row.TABLE} WHERE {row._fields[0]} = %s FOR NO KEY UPDATE", (key,)
            )
            self.foretell(at, Queue.take, row)

    @rule(
        at=sessions,
        order_id=ORDERS,
        attempt=st.sampled_from([0, 999_999]),
        attempt_limit=st.sampled_from([None, 2**31 - 1]),
    )
    def edit(self, at: str, order_id: UUID, attempt: int, attempt_limit: int | None) -> None:
        order = self.models[at].find(order_id)
        if self.can_take(at, order_id) and order.status == Status.PENDING:
            self.real.sessions[at].execute(
                "UPDATE orders SET attempt = %s, attempt_limit = %s WHERE order_id = %s",
                (attempt, attempt_limit, order_id),
            )
            self.foretell(at, Queue.edit, order, attempt=attempt, attempt_limit=attempt_limit)

    @rule(at=sessions, worker_id=WORKERS)
    def delete_worker(self, at: str, worker_id: str) -> None:
        if self.can_take(at, worker_id):
            worker = self.models[at].find(worker_id)
            self.real.sessions[at].execute("DELETE FROM workers WHERE worker_id = %s", (worker_id,))
            self.foretell(at, Queue.delete, worker)

    # Time and misfortune

    @rule(at=sessions)
    def begin(self, at: str) -> None:
        if not self.models[at].open:
            self.models[at].open = True
            self.real.sessions[at].execute("BEGIN")

    @rule(at=sessions)
    def commit(self, at: str) -> None:
        if self.models[at].open:
            self.real.sessions[at].execute("COMMIT")
            self.foretell(at, Queue.commit)

    @rule(at=sessions)
    def disconnect(self, at: str) -> None:
        disconnect(self.real.sessions[at])
        self.foretell(at, Queue.disconnect)

    @rule(seconds=st.sampled_from([-3.0, 1.0, 2.0, 5.0, 10.0, 10.5, 20.0, 20.5, 86_401.0]))
    def pass_time(self, seconds: float) -> None:
        self.database.now += timedelta(seconds=seconds)
        self.set_clock()

    @rule()
    def restart_server(self) -> None:
        for at in SESSIONS:
            self.disconnect(at)
        self.database.server_started_at = self.database.now
        self.set_clock()


def _declare_dead(*given: Any, **named: Any) -> list[str]:
    return sorted(rescue.declare_dead(*given, **named))
