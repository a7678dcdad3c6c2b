from collections.abc import Callable
from typing import Any

import pytest

from schema.queue import wake
from schema.queue.pause import pause, resume
from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartWorker


def test_paused_worker_finishes_what_it_has_and_claims_nothing_until_resumed(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    start_worker("handle = gated", ORDERS_CONCURRENCY=2)
    queue.submit(1)
    wait_until(notes)
    pause(queue.connection)
    queue.submit(3)
    wake.notify(queue.connection)
    open_gate()
    queue.until(queue.one("SELECT order_id FROM orders WHERE seq = 1"), "completed")
    # It has polled many times by then.
    paused_at = queue.one("SELECT paused_at FROM queue")
    wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '0.5 s'", paused_at))
    assert queue.counts() == {"completed": 1, "pending": 3}

    resume(queue.connection)

    queue.until_all("completed")
    latest = queue.one("SELECT min(started_at) FROM orders WHERE seq > 1")
    assert latest > paused_at


@pytest.mark.direct("LISTEN")
def test_wake_up_has_an_order_claimed_before_the_next_poll_is_due(
    start_worker: StartWorker, queue: Queue, connect: Callable[[], Connection]
) -> None:
    start_worker(ORDERS_POLL_SECONDS=1)
    ids = []
    with connect() as notifier:
        for _ in range(6):
            ids.append(queue.submit_one())
            wake.notify(notifier)
            queue.until(ids[-1], "completed")

    # Each claim sets the next poll a second away. By polling alone six orders, each submitted when the
    # one before was done, would take more than four seconds.
    first, last = (queue.find(order_id).started_at for order_id in (ids[0], ids[-1]))
    assert first is not None
    assert last is not None
    assert (last - first).total_seconds() < 3


def test_orders_are_found_by_polling_when_no_wake_up_comes(start_worker: StartWorker, queue: Queue) -> None:
    start_worker(ORDERS_POLL_SECONDS=0.2)
    for _ in range(3):
        queue.until(queue.submit_one(), "completed")


@pytest.mark.slow
@pytest.mark.direct("LISTEN")
def test_killed_listener_listens_again(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    start_worker(ORDERS_POLL_SECONDS=1)
    listening = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    )
    before = queue.one(listening, "orders-housekeeping")
    assert queue.terminate("orders-housekeeping") == 1

    wait_until(lambda: queue.one(listening, "orders-housekeeping") not in (None, before))
    wake.notify(queue.connection)
    queue.until(queue.submit_one(), "completed")
