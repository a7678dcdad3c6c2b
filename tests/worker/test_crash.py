import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker

FIRST_ONE_HANGS = """
def handle(order, context):
    note(order)
    if order.attempt == 1:
        wait_for("gate")
    note(order, "ended")
"""

DEADLY = """
def handle(order, context):
    note(order)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_killed_workers_order_is_claimed_again_within_5_seconds_at_the_default_lease(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    # The server has been up for more than a lease: on a younger one nobody is judged.
    wait_until(lambda: queue.one("SELECT clock_timestamp() - pg_postmaster_start_time() > '10 s'"))
    default: dict[str, Any] = {"ORDERS_LEASE_SECONDS": 10, "ORDERS_POLL_SECONDS": 1}
    victim = start_worker(FIRST_ONE_HANGS, **default)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    start_worker(FIRST_ONE_HANGS, **default)

    killed_at = queue.one("SELECT clock_timestamp()")
    victim.send(signal.SIGKILL)

    order = queue.until(order_id, "completed")
    assert order.attempt == 2
    assert order.started_at is not None
    print("claimed again after", order.started_at - killed_at)
    assert order.started_at - killed_at < timedelta(seconds=5)
    assert queue.attempts(order_id) == [(1, "rescued")]


def test_order_that_kills_its_worker_each_time_ends_in_failed(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    order_id = queue.submit_one()
    settings: dict[str, Any] = {"ORDERS_LEASE_SECONDS": 1, "ORDERS_MAX_ATTEMPTS": 2}

    # What a supervisor does: start it again when it died. The last one lives to see the order fail.
    for _ in range(2):
        assert start_worker(DEADLY, ready=False, **settings).wait() == -signal.SIGKILL
    last = start_worker(DEADLY, ready=False, **settings)

    order = queue.until(order_id, "failed")
    assert last.running
    assert order.attempt == 2
    assert order.last_error is not None
    assert "died" in order.last_error
    assert queue.attempts(order_id) == [(1, "rescued"), (2, "rescued")]
    assert len(notes()) == 2


@pytest.mark.slow
def test_worker_that_was_cut_off_for_a_lease_is_rescued_although_its_session_is_there(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    stalled = start_worker(FIRST_ONE_HANGS, ORDERS_LEASE_SECONDS=1)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    stalled.send(signal.SIGSTOP)

    start_worker(FIRST_ONE_HANGS, ORDERS_LEASE_SECONDS=1)

    assert queue.until(order_id, "completed").attempt == 2
    assert queue.attempts(order_id) == [(1, "rescued")]
    assert os.getpid() not in {line["pid"] for line in notes()}
