from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker

OVERRUNS = """
def handle(order, context):
    note(order, seconds_left=context.deadline - time.monotonic())
    if order.attempt == 1:
        connection = context.transaction()
        connection.execute("INSERT INTO ledger VALUES (%s)", [order.order_id])
        connection.execute("LOCK TABLE locked")
        wait_for("gate")
        note(order, "late", cancel_requested=context.cancel_requested)
"""

ODD_ONES_HANG = """
def handle(order, context):
    note(order)
    context.transaction().execute("SELECT 1")
    if order.seq % 2:
        wait_for("gate")
"""


def test_overrunning_attempt_is_given_up_and_its_late_result_ignored(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid); CREATE TABLE locked ()")
    worker = start_worker(
        OVERRUNS,
        ORDERS_LEASE_SECONDS=60,
        ORDERS_TIMEOUT_SECONDS=0.5,
        ORDERS_CONCURRENCY=2,
        ORDERS_HANDLER_CONNECTIONS=1,
    )
    order_id = queue.submit_one()

    order = queue.until(order_id, "completed")
    assert (order.attempt, order.last_error) == (2, "the attempt took longer than ORDERS_TIMEOUT_SECONDS")
    assert queue.attempts(order_id) == [(1, "timed_out")]
    # Its transaction is over on the server, what it had locked is free, and its place is another's.
    queue.connection.execute("SET lock_timeout = '5s'")
    queue.connection.execute("LOCK TABLE locked; SELECT 1")
    assert queue.one("SELECT count(*) FROM ledger") == 0

    open_gate()
    late = wait_until(lambda: notes("late"))
    assert late[0]["cancel_requested"]
    more = queue.submit(4)
    queue.until_all("completed")
    assert [queue.find(each).attempt for each in more] == [1] * 4
    assert queue.find(order_id) == order
    assert 0 < notes()[0]["seconds_left"] <= 0.5
    assert worker.stop() == 0


def test_hanging_attempts_do_not_keep_the_connections_from_others(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    start_worker(
        ODD_ONES_HANG,
        ORDERS_TIMEOUT_SECONDS=0.5,
        ORDERS_CONCURRENCY=4,
        ORDERS_HANDLER_CONNECTIONS=1,
        ORDERS_MAX_ATTEMPTS=1,
    )
    first, *_ = queue.submit(1)
    queue.until(first, "failed")

    queue.connection.execute("SELECT setval('orders_seq_seq', 2, false)")
    second = queue.submit_one()
    assert queue.until(second, "completed").attempt == 1
    wait_until(lambda: queue.counts() == {"failed": 1, "completed": 1})


def test_worker_with_as_many_abandoned_as_slots_drains_and_exits_with_3(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    worker = start_worker(
        "handle = gated", ORDERS_TIMEOUT_SECONDS=0.3, ORDERS_CONCURRENCY=2, ORDERS_MAX_ATTEMPTS=1
    )
    queue.submit(2)

    assert worker.wait() == 3
    assert queue.counts() == {"failed": 2}
    assert "handlers_hang" in worker.log
    assert queue.one("SELECT count(*) FROM workers WHERE dead_at IS NULL") == 0
    assert notes("ended") == []


@pytest.mark.slow
def test_exit_status_stays_3_when_a_hanging_handler_returns_during_the_drain(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker(
        """
def handle(order, context):
    note(order)
    wait_for("gate" if order.seq < 3 else "last")
    note(order, "ended")
""",
        ORDERS_TIMEOUT_SECONDS=1,
        ORDERS_CONCURRENCY=2,
        ORDERS_MAX_ATTEMPTS=1,
        ORDERS_POLL_SECONDS=0.05,
    )
    queue.submit(1)
    wait_until(lambda: len(notes("begun")) == 1)
    # The second one overruns later, when the third has taken the first one's slot.
    begun_at = queue.one("SELECT clock_timestamp()")
    wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '0.6 s'", begun_at))
    queue.submit(2)
    wait_until(lambda: "handlers_hang" in worker.log)
    open_gate()
    wait_until(lambda: notes("ended"))
    open_gate("last")

    assert worker.wait() == 3


@pytest.mark.slow
def test_dropped_attempt_that_hangs_gives_its_slot_up_in_time(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(
        """
def handle(order, context):
    note(order)
    if order.seq < 3:
        wait_for("never")
""",
        ORDERS_TIMEOUT_SECONDS=2,
        ORDERS_CONCURRENCY=2,
        ORDERS_MAX_ATTEMPTS=1,
    )
    queue.submit(1)
    wait_until(notes)
    old_id = queue.worker_id(worker)
    # What a stall brings about, without the wait for it.
    queue.connection.execute("UPDATE workers SET dead_at = clock_timestamp()")
    wait_until(lambda: queue.worker_id(worker) not in (None, old_id))

    assert queue.until(queue.submit_one(), "failed").last_error is not None
    assert worker.wait() == 3
