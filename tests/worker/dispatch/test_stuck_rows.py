from collections.abc import Callable
from typing import Any

from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartWorker

FIRST_WAITS = """
def handle(order, context):
    note(order)
    if order.seq == 1:
        wait_for("gate")
        note(order, "ended")
"""

FIRST_WRITES = """
def handle(order, context):
    note(order)
    if order.seq == 1:
        context.transaction().execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
        wait_for("gate")
        note(order, "ended")
"""

LOCK = "SELECT FROM orders WHERE seq = ANY (%s) FOR UPDATE"


def test_locked_orders_delay_themselves_only(
    start_worker: StartWorker,
    queue: Queue,
    connect: Callable[[], Connection],
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    processing, pending = queue.submit(2)
    other = connect()
    with other.transaction():
        other.execute(LOCK, [[2]])
        start_worker(FIRST_WAITS, ORDERS_CONCURRENCY=2)
        wait_until(lambda: queue.find(processing).status == "processing")
        other.execute(LOCK, [[1, 2]])
        open_gate()
        wait_until(lambda: notes("ended"))
        queue.submit(200)

        wait_until(lambda: queue.counts() == {"completed": 200, "processing": 1, "pending": 1})

    queue.until_all("completed")
    assert [queue.find(order_id).attempt for order_id in (processing, pending)] == [1, 1]
    assert len(notes("begun")) == 202
    assert queue.one("SELECT count(*) FROM attempts") == 0


def test_completion_in_a_handlers_transaction_waits_for_a_locked_order(
    start_worker: StartWorker,
    queue: Queue,
    connect: Callable[[], Connection],
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid)")
    start_worker(FIRST_WRITES, ORDERS_CONCURRENCY=2, ORDERS_LEASE_SECONDS=1)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    other = connect()
    with other.transaction():
        other.execute(LOCK, [[1]])
        open_gate()
        wait_until(lambda: notes("ended"))
        queue.submit(50)
        wait_until(lambda: queue.counts() == {"completed": 50, "processing": 1})
        # Longer than a transaction may idle: it must be tried again, not left alone.
        ended_at = queue.one("SELECT clock_timestamp()")
        wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '1.5 s'", ended_at))

    assert queue.until(order_id, "completed").attempt == 1
    assert queue.all("SELECT order_id FROM ledger") == [(order_id,)]
