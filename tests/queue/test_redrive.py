from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError
from schema.queue import redrive
from schema.runtime.connection import Connection


def test_dead_letter_goes_to_the_end_of_the_line_with_new_attempts(queue: Any) -> None:
    order_id = queue.insert(
        "failed",
        worker_id="w",
        started_at="now",
        cancel_requested_at="now",
        attempt=5,
        attempt_limit=5,
    )
    last = queue.row(queue.insert()).seq
    before = queue.row(order_id)

    redrive.redrive(queue.connection, order_id, attempts=3)

    row = queue.row(order_id)
    assert (row.status, row.attempt, row.attempt_limit) == ("pending", 5, 8)
    assert row.seq > last
    assert row.queued_at > before.queued_at
    assert (row.worker_id, row.started_at, row.finished_at, row.cancel_requested_at) == (None,) * 4
    assert (row.created_at, row.last_error) == (before.created_at, "it broke")


@pytest.mark.parametrize("status", ["pending", "processing", "retrying", "completed", "cancelled"])
def test_only_a_failed_order_is_redriven(queue: Any, status: str) -> None:
    order_id = queue.insert(status)
    before = queue.snapshot()

    with pytest.raises(IllegalMoveError, match=f"{order_id} is {status}"):
        redrive.redrive(queue.connection, order_id, attempts=5)
    assert queue.snapshot() == before


def test_unknown_order_is_not_found(queue: Any) -> None:
    with pytest.raises(OrderNotFoundError):
        redrive.redrive(queue.connection, uuid4(), attempts=5)


def test_locked_order_is_refused_at_once(queue: Any, lock: Callable[..., Connection]) -> None:
    order_id = queue.insert("failed")
    lock(order_id)

    with pytest.raises(OrderLockedError):
        redrive.redrive(queue.connection, order_id, attempts=5)
