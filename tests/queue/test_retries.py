from collections.abc import Callable
from typing import Any

from schema.queue import retries
from schema.runtime.connection import Connection
from schema.states import Outcome
from tests.rows import Queue


def test_due_orders_return_to_their_old_places(queue: Queue) -> None:
    queue.worker()
    first, second = queue.line(2)
    for claim in queue.claim(free=2):
        queue.end(claim.fence, outcome=Outcome.RAISED, retry_seconds=0)
    third = queue.insert()
    before = queue.row(first)

    assert retries.return_due(queue.connection) == 2

    row = queue.row(first)
    assert (row.status, row.seq, row.attempt, row.retry_at) == ("pending", before.seq, 1, None)
    assert row.queued_at > before.queued_at
    assert [claim.order_id for claim in queue.claim(free=3)] == [first, second, third]


def test_order_whose_backoff_is_not_over_stays(queue: Queue) -> None:
    queue.insert("retrying", retry_at=queue.value("SELECT clock_timestamp() + INTERVAL '1 minute'"))

    assert retries.return_due(queue.connection) == 0


def test_locked_order_is_passed_over_and_returned_later(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    locked, free = queue.insert("retrying"), queue.insert("retrying")
    psql = lock(locked)

    assert retries.return_due(queue.connection) == 1
    assert queue.status(free) == "pending"
    psql.execute("ROLLBACK")
    assert retries.return_due(queue.connection) == 1


def test_one_call_returns_a_bounded_number_the_longest_due_first(queue: Queue) -> None:
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, retry_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'retrying',"
        " clock_timestamp() - n * INTERVAL '1 second' FROM generate_series(1, %s) AS n",
        (retries.LIMIT + 5,),
    )

    assert retries.return_due(queue.connection) == retries.LIMIT
    assert queue.value("SELECT max(seq) FROM orders WHERE status = 'retrying'") == 5
    assert retries.return_due(queue.connection) == 5


def test_cancel_that_comes_between_keeps_the_order_out_of_the_line(
    queue: Queue, connect: Callable[[], Connection], in_thread: Callable[..., Any], lock: Callable[..., Any]
) -> None:
    order_id = queue.insert("retrying")
    psql = lock(order_id)
    psql.execute(
        "UPDATE orders SET status = 'cancelled', finished_at = clock_timestamp(), retry_at = NULL"
        " WHERE order_id = %s",
        (order_id,),
    )

    returned = in_thread(retries.return_due, connect()).result(timeout=10)
    psql.execute("COMMIT")

    assert returned == 0
    assert queue.status(order_id) == "cancelled"
