import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from psycopg import conninfo

from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartBusyWorker, StartWorker

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_signal_lets_running_orders_finish_and_claims_nothing_more(
    start_busy_worker: StartBusyWorker,
    queue: Queue,
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
    number: int,
) -> None:
    worker, _ = start_busy_worker(2, ignore_sigint=True)
    queue.submit(1)
    worker.send(number)
    wait_until(lambda: "stopping" in worker.log)
    queue.submit(1)
    open_gate()

    assert worker.wait() == 0
    assert queue.counts() == {"completed": 2, "pending": 2}
    assert queue.one("SELECT count(*) FROM workers WHERE dead_at IS NULL") == 0


@BOTH
def test_second_signal_hands_back_without_spending_the_attempt_or_the_place(
    start_busy_worker: StartBusyWorker, queue: Queue, wait_until: Callable[..., Any], number: int
) -> None:
    worker, [first, second] = start_busy_worker(2, ORDERS_SHUTDOWN_SECONDS=300)
    before = queue.find(first)
    worker.send(number)
    sent_at = queue.one("SELECT clock_timestamp()")
    wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '1.1 s'", sent_at))
    assert worker.running
    worker.send(number)

    assert worker.wait() == 0
    order = queue.find(first)
    assert (order.status, order.seq, order.attempt, order.attempt_limit) == ("pending", before.seq, 1, 6)
    assert queue.attempts(first) == queue.attempts(second) == [(1, "released")]


def test_two_signals_within_a_second_count_as_one(
    start_busy_worker: StartBusyWorker,
    queue: Queue,
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    worker, [order_id] = start_busy_worker()
    worker.send(signal.SIGINT)
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)
    wait_until(lambda: "stopping" in worker.log)
    open_gate()

    assert worker.wait() == 0
    assert queue.find(order_id).status == "completed"


def test_what_outlasts_the_shutdown_time_is_handed_back(
    start_busy_worker: StartBusyWorker, queue: Queue
) -> None:
    worker, [order_id] = start_busy_worker(ORDERS_SHUTDOWN_SECONDS=0.3)

    assert worker.stop() == 0
    assert queue.find(order_id).status == "pending"
    assert queue.attempts(order_id) == [(1, "released")]


@pytest.mark.slow
def test_locked_row_at_the_end_is_left_to_the_rescue(
    start_worker: StartWorker,
    start_busy_worker: StartBusyWorker,
    queue: Queue,
    connect: Callable[[], Connection],
) -> None:
    worker, [order_id] = start_busy_worker(ORDERS_SHUTDOWN_SECONDS=0.1)
    other = connect()
    with other.transaction():
        other.execute("SELECT FROM orders FOR UPDATE")

        assert worker.stop() == 4
    start_worker()
    assert queue.until(order_id, "completed").attempt == 2


def test_stopping_worker_says_what_it_waits_for(start_busy_worker: StartBusyWorker) -> None:
    worker, [order_id] = start_busy_worker(ORDERS_SHUTDOWN_SECONDS=1)

    assert worker.stop() == 0
    (waits,) = re.findall("INFO worker_waits .*", worker.log)
    assert "handlers=1 unwritten=0 seconds_left=1" in waits
    assert waits.endswith(f"order_ids={order_id}")
    # The handler that it left behind, and where that was.
    event, *frames = worker.log.partition("WARNING attempt_abandoned")[2].splitlines()
    assert event.endswith(f"order_id={order_id} attempt=1 outcome=released")
    assert [frame.rpartition(" ")[2] for frame in frames[:2]] == ["gated", "wait_for"]


def test_worker_shows_its_stacks_on_sigusr1(
    start_worker: StartWorker, wait_until: Callable[..., Any]
) -> None:
    worker = start_worker()

    worker.send(signal.SIGUSR1)

    wait_until(lambda: "Current thread" in worker.log and "waker.py" in worker.log)
    assert worker.stop() == 0


@pytest.mark.slow
def test_handlers_own_threads_do_not_keep_the_process_alive(start_worker: StartWorker, queue: Queue) -> None:
    worker = start_worker("""
def handle(order, context):
    threading.Thread(target=wait_for, args=["never"], daemon=False).start()
""")
    queue.until(queue.submit_one(), "completed")

    assert worker.stop() == 0


def test_handlers_that_write_to_stderr_to_the_last_do_not_spoil_the_exit_status(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(
        """
import sys

def handle(order, context):
    note(order)
    while True:
        sys.stderr.write(".\\n")
        sys.stdout.write(".\\n")
""",
        ORDERS_CONCURRENCY=4,
        ORDERS_SHUTDOWN_SECONDS=0,
    )
    queue.submit(4)
    wait_until(lambda: len(notes("begun")) == 4)

    assert worker.stop() == 0


@pytest.mark.slow
def test_stop_while_the_database_is_away_ends_in_bounded_time_with_status_4(
    start_worker: StartWorker,
    private_server: Server,
    private_url: str,
    notes: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker("handle = gated", url=private_url, ORDERS_SHUTDOWN_SECONDS=0.5)
    with Connection.open(private_url, name="test") as connection:
        Queue(connection, wait_until).submit(1)
        wait_until(lambda: notes("begun"))
    private_server.stop("immediate")

    worker.send(signal.SIGTERM)

    assert worker.wait(20) == 4
    assert "claims_left_to_the_rescue" in worker.log


def test_idle_worker_stops_while_the_database_is_away(
    start_worker: StartWorker, private_server: Server, private_url: str
) -> None:
    worker = start_worker(url=private_url)
    private_server.stop("immediate")

    assert worker.stop() == 0


def test_signal_before_the_database_is_there_ends_the_process(
    start_worker: StartWorker, database_url: str, wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(url=conninfo.make_conninfo(database_url, port=1), ready=False)
    wait_until(lambda: "waiting for the database" in worker.log)

    assert worker.stop() == 0


def test_signal_while_it_registers_ends_it_in_order(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'workers'::regclass AND NOT granted"
    with queue.connection.transaction():
        queue.connection.execute("LOCK TABLE workers IN SHARE MODE")
        worker = start_worker(ready=False)
        wait_until(lambda: queue.one(waiting) == 1)
        worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert "worker_stopped" in worker.log
    assert queue.one("SELECT count(*) FROM workers WHERE dead_at IS NOT NULL") == 1
