"""Random lives of the queue. Claims are never forgotten, so that zombies use them late.

In each session a transaction may be open: then what a call writes stays uncommitted, and the rows locked,
while the other session goes on.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from schema.order import Fence, NewOrder
from schema.queue import (
    cancel,
    completion,
    endings,
    exchange,
    pause,
    redrive,
    rescue,
    retries,
    submit,
    tally,
    workers,
)
from schema.queue.endings import Ending
from schema.queue.redrive import Failed
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from tests.model.agreement import Agreement
from tests.model.calls import call, calls, made_by
from tests.model.database import SESSIONS, START, RealQueue, disconnect
from tests.model.pasts import ARRIVALS, PASTS
from tests.model.queue import Queue
from tests.model.tables import TABLES, Entry, Order, Switch, Worker

LEASE_SECONDS = 10.0
FOREVER = float("inf")
LONG_AGO = START - timedelta(days=1000)

# Orders, workers and claims go by number: 0 is the latest of those that there are so far.
ORDER = st.integers(0, 5)
WORKER = st.integers(0, 2)
CLAIM = st.integers(0, 5)
HOLDER = st.none() | WORKER
"""Who uses a claim: None is the worker that made it."""

PATIENCE = st.sampled_from([FOREVER, FOREVER, LEASE_SECONDS, LEASE_SECONDS + 0.5])
FLOOR = st.sampled_from([0, 0, 3, 6, 9])
IDLE = st.sampled_from([None, None, True, False])
MOMENT = st.sampled_from(["long ago", "last exchange", "now"])
SESSION = st.sampled_from(SESSIONS)
ENDING = st.tuples(
    CLAIM, st.sampled_from(Outcome), st.sampled_from([None, "it broke"]), st.sampled_from([0.0, 5.0])
)


class QueueMachine(Agreement):
    """Everything that workers, housekeeping, people and misfortune do to a few orders."""

    def __init__(self, real: RealQueue) -> None:
        super().__init__(real)
        self.orders: list[UUID] = []
        self.workers: list[str] = []
        self.claims: list[tuple[str, Fence]] = []
        self.last_exchange: dict[str, datetime] = {}
        self.failed: Failed | None = None

    def order(self, number: int) -> UUID:
        return self.orders[-1 - number % len(self.orders)]

    def worker(self, number: int) -> str:
        return self.workers[-1 - number % len(self.workers)]

    def claim(self, number: int) -> tuple[str, Fence]:
        """Return who made a claim, and its fence."""
        return self.claims[-1 - number % len(self.claims)]

    def use(self, number: int, holder: int | None) -> tuple[str, Fence]:
        """Return a claim's fence, and who is going to use it."""
        worker_id, fence = self.claim(number)
        return (worker_id if holder is None else self.worker(holder)), fence

    def moment(self, which: str, worker_id: str) -> datetime:
        last = self.last_exchange.get(worker_id, LONG_AGO)
        return {"long ago": LONG_AGO, "last exchange": last, "now": self.database.now}[which]

    # Arrivals

    @initialize(past=st.sampled_from(list(PASTS)))
    def begin_with(self, past: str) -> None:
        for made in (*ARRIVALS, *PASTS[past]):
            made.make(self)

    @call(weight=5, at=SESSION)
    def submit(self, at: str) -> None:
        if len(self.orders) == 20:
            return
        order_id = submit.submit(self.real.sessions[at], NewOrder("ada", ("tea",), Decimal(1)))
        self.foretell(at, Queue.submit, order_id)
        self.orders.append(order_id)

    @call(weight=2, at=SESSION, slots=st.integers(1, 2))
    def register(self, at: str, slots: int) -> None:
        if len(self.workers) == 8:
            return
        session = self.real.sessions[at]
        registration = workers.register(
            session, host="", pid=1, slots=slots, lease_seconds=LEASE_SECONDS, handler="", version=""
        )
        foretold = self.foretell(at, Queue.register, registration.worker_id, slots, LEASE_SECONDS)
        assert registration == foretold
        self.workers.append(registration.worker_id)

    # A worker, alive or dead

    @call(
        weight=8,
        at=SESSION,
        worker=WORKER,
        free=st.integers(1, 3),
        idle=IDLE,
        floor=FLOOR,
        limit=st.integers(1, 3),
    )
    def claim_next(
        self, at: str, worker: int, free: int, floor: int, limit: int, *, idle: bool | None
    ) -> None:
        worker_id = self.worker(worker)
        self._exchange(at, worker_id, finished=[], free=free, idle=idle, floor=floor, max_attempts=limit)

    def claim_first(self, at: str) -> None:
        """Claim something, where there is no claim yet."""
        self.claim_next(at, 0, free=2, idle=True, floor=0, limit=2)

    @call(
        weight=8,
        at=SESSION,
        holder=HOLDER,
        finished=st.lists(CLAIM, min_size=1, max_size=3),
        free=st.integers(0, 2),
        idle=IDLE,
        floor=FLOOR,
    )
    def exchange(
        self, at: str, holder: int | None, finished: list[int], free: int, floor: int, *, idle: bool | None
    ) -> None:
        if not self.claims:
            self.claim_first(at)
            return
        worker_id, _ = self.use(finished[0], holder)
        fences = sorted({self.claim(number)[1] for number in finished})
        self._exchange(at, worker_id, finished=fences, free=free, idle=idle, floor=floor, max_attempts=2)

    def _exchange(self, at: str, worker_id: str, **wanted: Any) -> None:
        since = self.moment("last exchange", worker_id)
        exchanged = self.agree(at, exchange.exchange, Queue.exchange, worker_id, since=since, **wanted)
        self.last_exchange[worker_id] = exchanged.at
        self.claims += [(worker_id, claim.fence) for claim in exchanged.claimed]

    @call(weight=2, at=SESSION, worker=WORKER, held=st.lists(ORDER, max_size=1), since=MOMENT)
    def recover_claims(self, at: str, worker: int, held: list[int], since: str) -> None:
        worker_id = self.worker(worker)
        order_ids, moment = [self.order(number) for number in held], self.moment(since, worker_id)
        self.agree(at, exchange.recover_claims, Queue.recover_claims, worker_id, held=order_ids, since=moment)

    @call(weight=8, at=SESSION, holder=HOLDER, ended=st.lists(ENDING, min_size=1, max_size=3))
    def end(self, at: str, holder: int | None, ended: list[tuple[int, Outcome, str | None, float]]) -> None:
        if not self.claims:
            self.claim_first(at)
            return
        worker_id, _ = self.use(ended[0][0], holder)
        by_fence = {self.claim(number)[1]: (outcome, error, pause) for number, outcome, error, pause in ended}
        ends = [Ending(fence, *how) for fence, how in by_fence.items()]
        self.agree(at, endings.end, Queue.end, worker_id, endings=ends)

    @call(weight=3, at=SESSION, holder=HOLDER, claim=CLAIM)
    def complete(self, at: str, holder: int | None, claim: int) -> None:
        """Let a handler write and complete in a transaction, which stays open for a while."""
        if not self.claims:
            self.claim_first(at)
            return
        if self.models[at].open:
            self.commit(at)
        worker_id, fence = self.use(claim, holder)
        self.begin(at)
        self.real.sessions[at].execute("INSERT INTO ledger VALUES (%s, %s)", fence)
        self.models[at].write(Entry(*fence))
        if not self.agree(at, completion.complete, Queue.complete, worker_id, fence=fence):
            self.disconnect(at)

    @call(weight=2, at=SESSION, holder=HOLDER, claim=CLAIM)
    def look(self, at: str, holder: int | None, claim: int) -> None:
        if not self.claims:
            self.claim_first(at)
            return
        worker_id, fence = self.use(claim, holder)
        self.agree(at, completion.claim_state, Queue.claim_state, worker_id, fence=fence)
        self.agree(at, completion.is_free, Queue.is_free, worker_id, fence=fence)

    @call(at=SESSION, worker=WORKER, held=st.lists(ORDER, max_size=2), oldest=MOMENT)
    def beat(self, at: str, worker: int, held: list[int], oldest: str) -> None:
        worker_id = self.worker(worker)
        order_ids, moment = [self.order(number) for number in held], self.moment(oldest, worker_id)
        self.agree(at, workers.beat, Queue.beat, worker_id, held=order_ids, oldest_claim_at=moment)

    @call(at=SESSION, worker=WORKER)
    def hold_session(self, at: str, worker: int) -> None:
        if self.can_take(at, self.worker(worker)):
            self.agree(at, workers.hold_session, Queue.hold_session, self.worker(worker))

    @call(weight=1, at=SESSION, worker=WORKER)
    def leave(self, at: str, worker: int) -> None:
        if self.can_take(at, self.worker(worker)):
            self.agree(at, workers.leave, Queue.leave, self.worker(worker))

    # Housekeeping

    @call(weight=2, at=SESSION)
    def return_due(self, at: str) -> None:
        self.agree(at, retries.return_due, Queue.return_due)

    @call(weight=3, at=SESSION, watched=PATIENCE, running=PATIENCE)
    def declare_dead(self, at: str, watched: float, running: float) -> None:
        self.agree(at, _declare_dead, Queue.declare_dead, watched_seconds=watched, running_seconds=running)

    @call(weight=3, at=SESSION)
    def sweep(self, at: str) -> None:
        self.agree(at, rescue.sweep, Queue.sweep)

    @call(weight=2, at=SESSION)
    def mark_swept(self, at: str) -> None:
        self.agree(at, rescue.mark_swept, Queue.mark_swept)

    @call(weight=2, at=SESSION)
    def fold(self, at: str) -> None:
        self.agree(at, _fold, Queue.fold)

    @call(weight=2, at=SESSION, after=st.sampled_from([None, LONG_AGO, START]))
    def patrol(self, at: str, after: datetime | None) -> None:
        self.agree(at, rescue.patrol, Queue.patrol, after=after)

    @call(at=SESSION)
    def prune(self, at: str) -> None:
        self.agree(at, workers.prune, Queue.prune)

    # People

    @call(weight=2, at=SESSION, order=ORDER)
    def cancel(self, at: str, order: int) -> None:
        self.agree(at, cancel.cancel, Queue.cancel, self.order(order))

    @call(weight=2, at=SESSION, order=ORDER, attempts=st.integers(1, 2))
    def redrive(self, at: str, order: int, attempts: int) -> None:
        self.agree(at, redrive.redrive, Queue.redrive, self.order(order), attempts=attempts)

    @call(
        weight=2,
        at=SESSION,
        prefix=st.sampled_from([None, "it ", "worker"]),
        again=st.booleans(),
        attempts=st.integers(1, 2),
    )
    def redrive_failed(self, at: str, prefix: str | None, *, again: bool, attempts: int) -> None:
        """Redrive what has failed by now, or `again` what was found to have failed before."""
        if self.failed is None or not again:
            self.failed = self.agree(at, redrive.find_failed, Queue.find_failed, error_prefix=prefix)
        self.agree(at, _redrive_failed, Queue.redrive_failed, self.failed, attempts=attempts)

    @call(at=SESSION, pauses=st.booleans())
    def switch(self, at: str, *, pauses: bool) -> None:
        if self.models[at].find(Switch().key) is None and not self.models[at].can_take(Switch()):
            return  # It would wait for the other session, which has inserted the row.
        real, model = (pause.pause, Queue.pause) if pauses else (pause.resume, Queue.resume)
        self.agree(at, real, model)

    @call(at=SESSION, order=ORDER)
    def refer(self, at: str, order: int) -> None:
        """Insert a row with a foreign key to an order: the lock that this takes is in no statement's way."""
        self.begin(at)
        self.by_hand(at, "refer", "SELECT FROM orders WHERE order_id = %s FOR KEY SHARE", [self.order(order)])

    @call(weight=2, at=SESSION, table=st.sampled_from([Order, Order, Worker, Switch]), number=ORDER)
    def lock(self, at: str, table: type[Any], number: int) -> None:
        """Lock a row by hand, in a transaction that is then left alone."""
        key = {Order: self.order(number), Worker: self.worker(number), Switch: Switch().key}[table]
        if self.can_take(at, key):
            row = self.models[at].find(key)
            self.begin(at)
            statement = f"SELECT FROM {TABLES[table]} WHERE {table._fields[0]} = %s FOR NO KEY UPDATE"
            self.by_hand(at, "lock", statement, [key])
            self.foretell(at, Queue.take, row)

    @call(
        at=SESSION,
        order=ORDER,
        attempt=st.sampled_from([0, 999_999]),
        attempt_limit=st.sampled_from([None, 2**31 - 1]),
    )
    def edit(self, at: str, order: int, attempt: int, attempt_limit: int | None) -> None:
        order_id = self.order(order)
        row = self.models[at].find(order_id)
        if self.can_take(at, order_id) and row.status == Status.PENDING:
            statement = "UPDATE orders SET (attempt, attempt_limit) = (%s, %s) WHERE order_id = %s"
            self.by_hand(at, "edit", statement, [attempt, attempt_limit, order_id])
            self.foretell(at, Queue.edit, row, attempt=attempt, attempt_limit=attempt_limit)

    @call(at=SESSION, order=ORDER)
    def lower_limit(self, at: str, order: int) -> None:
        """Set the limit of an order that is being worked on below its present attempt."""
        order_id = self.order(order)
        row = self.models[at].find(order_id)
        if self.can_take(at, order_id) and row.status == Status.PROCESSING:
            statement = "UPDATE orders SET attempt_limit = 0 WHERE order_id = %s"
            self.by_hand(at, "lower_limit", statement, [order_id])
            self.foretell(at, Queue.edit, row, attempt_limit=0)

    @call(at=SESSION, worker=WORKER)
    def delete_worker(self, at: str, worker: int) -> None:
        worker_id = self.worker(worker)
        if self.can_take(at, worker_id):
            self.by_hand(at, "delete_worker", "DELETE FROM workers WHERE worker_id = %s", [worker_id])
            self.foretell(at, Queue.delete, self.models[at].find(worker_id))

    @call(at=SESSION)
    def delete_switch(self, at: str) -> None:
        if self.can_take(at, Switch().key):
            self.by_hand(at, "delete_switch", "DELETE FROM queue", [])
            self.foretell(at, Queue.delete, self.models[at].find(Switch().key))

    # Time and misfortune

    @call(at=SESSION)
    def begin(self, at: str) -> None:
        if not self.models[at].open:
            self.models[at].open = True
            self.real.sessions[at].execute("BEGIN")

    @call(weight=8, at=SESSION)
    def commit(self, at: str) -> None:
        if self.models[at].open:
            self.real.sessions[at].execute("COMMIT")
            self.foretell(at, Queue.commit)

    @call(at=SESSION)
    def disconnect(self, at: str) -> None:
        disconnect(self.real.sessions[at])
        self.foretell(at, Queue.disconnect)

    @call(weight=4, seconds=st.sampled_from([-3.0, 1.0, 2.0, 5.0, 10.0, 10.5, 20.5, 86_401.0]))
    def pass_time(self, seconds: float) -> None:
        self.database.now += timedelta(seconds=seconds)
        self.set_clock()

    @call()
    def restart_server(self) -> None:
        for at in SESSIONS:
            self.disconnect(at)
        self.database.server_started_at = self.database.now
        self.set_clock()

    make = made_by(calls(list(vars().values())))

    @classmethod
    def favouring(cls, names: Sequence[str]) -> type["QueueMachine"]:
        """Return a machine that makes the calls of these names far more often."""
        methods = [getattr(cls, name) for name in dir(cls)]

        class Favouring(cls):  # type: ignore[valid-type, misc]
            make = made_by(calls(methods, favoured=names))

        return Favouring


def _fold(connection: Connection) -> None:
    tally.fold(connection)


def _redrive_failed(connection: Connection, failed: Failed, *, attempts: int) -> int:
    return sum(redrive.redrive_failed(connection, failed, attempts=attempts))


def _declare_dead(*given: Any, **named: Any) -> list[str]:
    return sorted(rescue.declare_dead(*given, **named).dead)
