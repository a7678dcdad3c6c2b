from collections.abc import Callable
from typing import Any

import pytest

from schema.queue.cancel import cancel
from schema.states import Status
from tests.worker.conftest import Queue, StartBusyWorker, StartWorker

WAITS_FOR_CANCEL = """
def handle(order, context):
    note(order)
    while not context.cancel_requested:
        time.sleep(0.01)
    END
"""


@pytest.mark.parametrize(
    ("end", "status", "outcomes"),
    [
        ("raise Cancelled('as asked')", Status.CANCELLED, ["cancelled"]),
        ("raise ValueError('could not undo')", Status.CANCELLED, ["raised"]),
        ("return", Status.COMPLETED, []),
        ("raise Reject('never')", Status.FAILED, ["rejected"]),
        ("context.transaction().execute('SELECT 1'); return", Status.COMPLETED, []),
    ],
)
def test_processing_order_learns_of_a_cancel_and_its_handler_decides(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    wait_until: Callable[..., Any],
    end: str,
    status: Status,
    outcomes: list[str],
) -> None:
    start_worker(WAITS_FOR_CANCEL.replace("END", end), ORDERS_LEASE_SECONDS=1)
    order_id = queue.submit_one()
    wait_until(notes)

    assert cancel(queue.connection, order_id) == "processing"

    order = queue.until(order_id, status)
    assert order.attempt == 1
    assert order.cancel_requested_at is not None
    assert [outcome for _, outcome in queue.attempts(order_id)] == outcomes


def test_agreeing_to_a_cancel_nobody_asked_for_is_a_failed_attempt(
    start_worker: StartWorker, queue: Queue
) -> None:
    start_worker("def handle(order, context):\n    if order.attempt == 1: raise Cancelled")
    order_id = queue.submit_one()

    assert queue.until(order_id, "completed").attempt == 2
    assert queue.attempts(order_id) == [(1, "cancelled")]


@pytest.mark.slow
def test_cancelled_order_of_a_killed_worker_is_not_worked_again(
    start_worker: StartWorker, start_busy_worker: StartBusyWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    worker, [order_id] = start_busy_worker(ORDERS_LEASE_SECONDS=1)
    worker.process.kill()
    cancel(queue.connection, order_id)
    start_worker(ORDERS_LEASE_SECONDS=1)

    assert queue.until(order_id, "cancelled").attempt == 1
    assert len(notes()) == 1
