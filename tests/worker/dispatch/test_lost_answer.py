from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.wire import Crossing, Wire
from tests.worker.conftest import Queue, StartWorker


class Loss:
    """Loses one answer: the first with these words in it, on a connection of that name."""

    def __init__(self, name: str, words: bytes) -> None:
        self._name = name
        self._words = words
        self.suffered = False

    def __call__(self, crossing: Crossing) -> bool:
        if self.suffered or not crossing.answered or crossing.name != self._name:
            return True
        self.suffered = self._words in crossing.content
        return not self.suffered


def test_claims_whose_answer_was_lost_are_worked_all_the_same(
    start_worker: StartWorker,
    queue: Queue,
    database_url: str,
    notes: Callable[..., list[dict[str, Any]]],
    wait_until: Callable[..., Any],
) -> None:
    loss = Loss("orders-dispatcher", b"ada")
    with Wire(database_url, loss) as wire:
        worker = start_worker(url=wire.url, ORDERS_CONCURRENCY=4, ORDERS_LEASE_SECONDS=10)

        ids = queue.submit(10)

        queue.until_all("completed")
        wait_until(lambda: len(notes()) == 10)
    assert loss.suffered
    assert Counter(line["order_id"] for line in notes()) == Counter(map(str, ids))
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert "claims_recovered" in worker.log


def test_commit_whose_answer_was_lost_is_looked_up(
    start_worker: StartWorker, queue: Queue, database_url: str, notes: Callable[..., list[dict[str, Any]]]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    loss = Loss("orders-handler", b"COMMIT\0")
    with Wire(database_url, loss) as wire:
        worker = start_worker(
            """
def handle(order, context):
    note(order)
    context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
""",
            url=wire.url,
        )

        order_id = queue.submit_one()

        assert queue.until(order_id, "completed").attempt == 1
        assert worker.stop() == 0
    assert loss.suffered
    assert queue.all("SELECT order_id FROM ledger") == [(order_id,)]
    assert len(notes()) == 1
    assert "claim_lost" not in worker.log
