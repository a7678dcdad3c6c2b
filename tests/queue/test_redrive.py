from collections.abc import Callable
from uuid import uuid4

import pytest

from schema.errors import IllegalMoveError, OrderLockedError, OrderNotFoundError
from schema.queue import redrive
from schema.runtime.connection import Connection
from tests.rows import Queue


def test_dead_letter_goes_to_the_end_of_the_line_with_new_attempts(queue: Queue) -> None:
    order_id = queue.insert(
        "failed", worker_id="w", started_at="now", cancel_requested_at="now", attempt=5, attempt_limit=5
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
def test_only_a_failed_order_is_redriven(queue: Queue, status: str) -> None:
    order_id = queue.insert(status)
    before = queue.snapshot()

    with pytest.raises(IllegalMoveError, match=f"{order_id} is {status}"):
        redrive.redrive(queue.connection, order_id, attempts=5)
    assert queue.snapshot() == before


def test_unknown_order_is_not_found(queue: Queue) -> None:
    with pytest.raises(OrderNotFoundError):
        redrive.redrive(queue.connection, uuid4(), attempts=5)


def test_locked_order_is_refused_at_once(queue: Queue, lock: Callable[..., Connection]) -> None:
    order_id = queue.insert("failed")
    lock(order_id)

    with pytest.raises(OrderLockedError):
        redrive.redrive(queue.connection, order_id, attempts=5)


def redrive_all(queue: Queue, *, error_prefix: str | None = None, attempts: int = 5) -> int:
    failed = redrive.find_failed(queue.connection, error_prefix=error_prefix)
    return sum(redrive.redrive_failed(queue.connection, failed, attempts=attempts))


def test_all_that_failed_go_to_the_end_of_the_line_in_their_order(queue: Queue) -> None:
    failed = [queue.insert("failed", order_id=uuid4(), seq=seq) for seq in (14, 11, 13, 12)]
    waiting = queue.line(2)

    assert redrive_all(queue) == 4

    in_line = queue.connection.execute("SELECT order_id FROM orders WHERE in_line ORDER BY seq").fetchall()
    assert [order_id for (order_id,) in in_line] == [*waiting, failed[1], failed[3], failed[2], failed[0]]


def test_each_of_many_is_moved_as_a_single_one(queue: Queue) -> None:
    columns = {"worker_id": "w", "started_at": "now", "cancel_requested_at": "now", "attempt": 7}
    one, other = queue.insert("failed", **columns), queue.insert("failed", **columns)
    redrive.redrive(queue.connection, one, attempts=3)
    before = queue.now()

    redrive_all(queue, attempts=3)

    single, among_many = vars(queue.row(one)), vars(queue.row(other))
    assert before <= among_many["queued_at"] <= queue.now()
    own = {"order_id", "seq", "created_at", "queued_at"}
    assert {name: value for name, value in among_many.items() if name not in own} == {
        name: value for name, value in single.items() if name not in own
    }


@pytest.mark.parametrize("status", ["pending", "processing", "retrying", "completed", "cancelled"])
def test_what_has_not_failed_stays_as_it_is(queue: Queue, status: str) -> None:
    queue.insert(status, last_error="it broke")
    before = queue.snapshot()

    assert redrive_all(queue) == 0
    assert queue.snapshot() == before


def test_only_orders_whose_error_begins_so_are_found(queue: Queue) -> None:
    errors = ["50%_off", "50% off", "so: 50%_off", "", None]
    by_error = {error: queue.insert("failed", last_error=error) for error in errors}

    found = {
        prefix: redrive.find_failed(queue.connection, error_prefix=prefix).order_ids
        for prefix in ("50%_", "50%", "", None)
    }

    assert found["50%_"] == [by_error["50%_off"]]
    assert found["50%"] == [by_error["50%_off"], by_error["50% off"]]
    assert found[""] == [by_error[error] for error in errors if error is not None]
    assert found[None] == list(by_error.values())


def test_what_fails_after_it_was_looked_for_is_not_moved(queue: Queue) -> None:
    again, moved = queue.insert("failed"), queue.insert("failed")
    failed = redrive.find_failed(queue.connection)
    late = queue.insert("failed")
    redrive.redrive(queue.connection, again, attempts=5)
    queue.change(
        again, "status = 'failed', attempt = attempt + 1, finished_at = clock_timestamp(), last_error = 'x'"
    )

    assert sum(redrive.redrive_failed(queue.connection, failed, attempts=5)) == 1
    assert [queue.status(order_id) for order_id in (again, late, moved)] == ["failed", "failed", "pending"]


def test_what_is_locked_or_has_no_attempt_left_to_count_is_skipped(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    locked, spent, moved = (
        queue.insert("failed"),
        queue.insert("failed", attempt=1_000_000),
        queue.insert("failed"),
    )
    lock(locked)

    assert redrive_all(queue) == 1
    assert [queue.status(order_id) for order_id in (locked, spent, moved)] == ["failed", "failed", "pending"]


def test_many_are_moved_in_steps_each_of_them_committed(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, finished_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'failed', clock_timestamp()"
        " FROM generate_series(1, %s)",
        [2 * redrive.LIMIT + 1],
    )
    steps = redrive.redrive_failed(queue.connection, redrive.find_failed(queue.connection), attempts=5)

    assert next(steps) == redrive.LIMIT
    count = connect().execute("SELECT count(*) FROM orders WHERE in_line").fetchone()

    assert count == (redrive.LIMIT,)
    assert list(steps) == [redrive.LIMIT, 1]
