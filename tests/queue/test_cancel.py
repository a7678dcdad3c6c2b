from collections.abc import Callable
from uuid import uuid4

import pytest

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError
from schema.queue import cancel
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from tests.rows import Queue


@pytest.mark.parametrize("status", ["pending", "retrying"])
def test_waiting_order_is_cancelled_at_once(queue: Queue, status: str) -> None:
    order_id = queue.insert(status)
    before = queue.now()

    assert cancel.cancel(queue.connection, order_id) is Status.CANCELLED

    row = queue.row(order_id)
    assert (row.status, row.retry_at, row.in_line) == ("cancelled", None, False)
    assert before <= row.finished_at <= queue.now()
    assert before <= row.cancel_requested_at <= queue.now()


def test_cancelled_order_is_never_claimed(queue: Queue) -> None:
    queue.worker()
    cancel.cancel(queue.connection, queue.insert())

    assert queue.claim(free=10) == []


def test_order_that_is_worked_on_notes_the_first_request_and_goes_on(queue: Queue) -> None:
    order_id = queue.insert("processing")

    assert cancel.cancel(queue.connection, order_id) is Status.PROCESSING
    first = queue.row(order_id).cancel_requested_at
    assert cancel.cancel(queue.connection, order_id) is Status.PROCESSING

    row = queue.row(order_id)
    assert (row.status, row.finished_at) == ("processing", None)
    assert row.cancel_requested_at == first


def test_completion_that_commits_first_wins_over_a_requested_cancel(queue: Queue) -> None:
    queue.worker()
    queue.insert()
    (claim,) = queue.claim()
    cancel.cancel(queue.connection, claim.order_id)

    exchanged = queue.exchange(finished=[claim.fence])

    assert exchanged.lost == set()
    assert queue.status(claim.order_id) is Status.COMPLETED


def test_requested_cancel_takes_effect_when_the_attempt_fails(queue: Queue) -> None:
    queue.worker()
    queue.insert()
    (claim,) = queue.claim()
    cancel.cancel(queue.connection, claim.order_id)

    queue.end(claim.fence, outcome=Outcome.RAISED)

    assert queue.status(claim.order_id) is Status.CANCELLED


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_final_order_is_refused_with_its_state(queue: Queue, status: str) -> None:
    order_id = queue.insert(status)
    before = queue.snapshot()

    with pytest.raises(IllegalMoveError, match=f"{order_id} is {status}"):
        cancel.cancel(queue.connection, order_id)
    assert queue.snapshot() == before


def test_unknown_order_is_not_found(queue: Queue) -> None:
    with pytest.raises(OrderNotFoundError):
        cancel.cancel(queue.connection, uuid4())


def test_locked_order_is_refused_at_once_and_cancelled_later(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    order_id = queue.insert()
    psql = lock(order_id)

    with pytest.raises(OrderLockedError):
        cancel.cancel(queue.connection, order_id)
    psql.execute("ROLLBACK")
    assert cancel.cancel(queue.connection, order_id) is Status.CANCELLED
