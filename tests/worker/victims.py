import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from threading import Event
from typing import Any

from tests.wire import Crossing, Wire
from tests.worker.conftest import Queue, StartWorker, Worker

# As a user would have it, with nothing that keeps an entry from being made twice.
TABLES = """
CREATE TABLE ledger (order_id uuid, amount numeric(14,2));
CREATE TABLE shipments (order_id uuid);
"""

BOOK = """
import signal


def book(order, context):
    transaction = context.transaction()
    transaction.execute(
        "INSERT INTO ledger (order_id, amount) VALUES (%s, %s)", [order.order_id, order.total_amount]
    )
    transaction.execute("INSERT INTO shipments (order_id) VALUES (%s)", [order.order_id])
    be_done()


def be_done(*_):
    if "LIVES_FOR_ONE_ORDER" in os.environ:
        os.kill(os.getpid(), signal.SIGTERM)
"""

# For handlers that write nothing: whatever completes an order makes its entries.
BOOKING_TRIGGER = """
CREATE FUNCTION book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger (order_id, amount) VALUES (NEW.order_id, NEW.total_amount);
    INSERT INTO shipments (order_id) VALUES (NEW.order_id);
    RETURN NULL;
END $$;
CREATE TRIGGER book AFTER UPDATE ON orders
FOR EACH ROW WHEN (NEW.status = 'completed') EXECUTE FUNCTION book();
"""

# Of one snapshot: orders that have not exactly the entries that they must have.
UNBALANCED = """
SELECT order_id, status, attempt, booked, shipped
FROM orders
FULL JOIN (SELECT order_id, array_agg(amount) AS booked FROM ledger GROUP BY order_id) AS ledger
    USING (order_id)
FULL JOIN (SELECT order_id, count(*) AS shipped FROM shipments GROUP BY order_id) AS shipments
    USING (order_id)
WHERE booked IS DISTINCT FROM CASE WHEN status = 'completed' THEN ARRAY[total_amount] END
   OR shipped IS DISTINCT FROM CASE WHEN status = 'completed' THEN 1 END
"""

# Of one snapshot: what the ledger has, and what the completed orders are worth.
SUMS = """
SELECT (SELECT COALESCE(sum(amount), 0) FROM ledger),
       (SELECT COALESCE(sum(total_amount), 0) FROM orders WHERE status = 'completed')
"""

# Orders whose attempts that did not complete are not numbered from 1 without gaps.
GAPS = """
SELECT order_id, orders.attempt, status, array_agg(attempts.attempt)
FROM orders
LEFT JOIN attempts USING (order_id)
GROUP BY orders.order_id
HAVING array_remove(array_agg(attempts.attempt ORDER BY attempts.attempt), NULL)
       <> ARRAY (SELECT generate_series(1, orders.attempt - (status = 'completed')::integer))
"""


def audit(queue: Queue) -> None:
    """Fail unless the ledger has what was completed, all of it and nothing else, right now."""
    assert queue.all(UNBALANCED) == []
    [(booked, earned)] = queue.all(SUMS)
    assert booked == earned


@dataclass(frozen=True, slots=True)
class Boundary:
    """The moment when a statement is sent and not yet seen by the server, or answered and not yet heard."""

    name: str
    number: int
    answered: bool

    def __call__(self, crossing: Crossing) -> bool:
        return (crossing.name, crossing.number, crossing.answered) == (self.name, self.number, self.answered)


@dataclass(frozen=True, slots=True)
class Life:
    """What a worker does with its one order, and what becomes of the order in the end.

    `handler` is the worker's, `heir` that of the one which comes after it; `ends_by` are words of the
    statement with which an undisturbed worker ends its attempt. `trigger` is SQL to run before.
    """

    handler: str
    heir: str
    end: str
    ends_by: bytes
    shutdown_seconds: int = 30
    trigger: str = ""


class Victim:
    """A worker that gets a signal at one moment of its life: SIGKILL, or SIGSTOP until it is resumed."""

    def __init__(self, url: str, at: Callable[[Crossing], bool], number: signal.Signals) -> None:
        self.at = at
        self.crossing: Crossing | None = None
        self._number = number
        self._worker: Future[Worker] = Future()
        self._resumed = Event()
        self.wire = Wire(url, self._passes)

    @property
    def worker(self) -> Worker:
        return self._worker.result()

    @property
    def is_over(self) -> bool:
        """Whether the signal has come, or never will because the process has ended."""
        return self.crossing is not None or not self.worker.running

    def take(self, worker: Worker) -> None:
        self._worker.set_result(worker)

    def resume(self) -> None:
        """Let it go on, and let pass at last what was held up."""
        self.worker.send(signal.SIGCONT)
        self._resumed.set()

    def _passes(self, crossing: Crossing) -> bool:
        if self.crossing is not None or not self.at(crossing):
            return True
        worker = self.worker
        self.crossing = crossing
        worker.send(self._number)
        if self._number == signal.SIGKILL:
            worker.wait()
            return False
        return self._resumed.wait(120)


class Scene:
    """Orders, a ledger, and the victims that work them."""

    def __init__(
        self, *, queue: Queue, start_worker: StartWorker, url: str, wait_until: Callable[..., Any]
    ) -> None:
        self.queue = queue
        self.wait_until = wait_until
        self._start_worker = start_worker
        self._url = url
        self._wires = ExitStack()
        queue.connection.execute(TABLES)

    def close(self) -> None:
        self._wires.close()

    def start(self, handler: str, **settings: object) -> Worker:
        """Start a worker that polls seldom, as it would in production, and never gives an order up."""
        given: dict[str, Any] = {"ORDERS_POLL_SECONDS": 1, "ORDERS_MAX_ATTEMPTS": 1000, **settings}
        return self._start_worker(f"{BOOK}\n{handler}", ready=False, **given)

    def halt(
        self,
        moments: Sequence[Callable[[Crossing], bool]],
        number: signal.Signals,
        *,
        life: Life,
        lease_seconds: float = 2,
    ) -> list[Victim]:
        """Run a worker for each moment, all at once, until each was halted there or has ended by itself."""
        victims = [Victim(self._url, at, number) for at in moments]
        for victim in victims:
            self._wires.callback(victim.wire.close)
            victim.take(
                self.start(
                    life.handler,
                    url=victim.wire.url,
                    LIVES_FOR_ONE_ORDER=1,
                    ORDERS_LEASE_SECONDS=lease_seconds,
                    ORDERS_SHUTDOWN_SECONDS=life.shutdown_seconds,
                )
            )

        def over() -> bool:
            audit(self.queue)
            return all(victim.is_over for victim in victims)

        self.wait_until(over, seconds=60)
        return victims

    def finish(self, status: str) -> None:
        """Wait until every order is in that state, the ledger right at every moment."""

        def finished() -> bool:
            audit(self.queue)
            return set(self.queue.counts()) == {status}

        self.wait_until(finished, seconds=60)
        assert self.queue.all(GAPS) == []


def walk(
    names: list[str], halt: Callable[[list[Boundary]], list[Victim]], *, stride: int
) -> Iterator[list[Victim]]:
    """Halt workers at the first boundaries on each connection, the next ones, and so on to the last.

    The last is behind when a worker has lived to its end without meeting its boundary.
    """
    ways = list(product(names, (False, True)))
    first = 1
    while ways:
        numbers = range(first, first + stride)
        victims = halt([Boundary(name, number, answered) for name, answered in ways for number in numbers])
        yield victims
        unmet = {victim.at for victim in victims if victim.crossing is None}
        ways = [way for way in ways if not any(Boundary(way[0], n, way[1]) in unmet for n in numbers)]
        first += stride


def were_halted_around(victims: list[Victim], words: bytes) -> bool:
    """Tell whether one was halted before, and one after, a statement with these words."""
    met = [victim.crossing for victim in victims if victim.crossing]
    before = {(each.name, each.number) for each in met if not each.answered and words in each.content}
    after = {(each.name, each.number) for each in met if each.answered}
    return bool(before & after)
