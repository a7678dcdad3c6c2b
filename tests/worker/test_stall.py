import signal
from collections.abc import Callable
from typing import Any

from tests.worker.conftest import Queue, StartWorker, Worker

SHORT: dict[str, Any] = {"ORDERS_LEASE_SECONDS": 1}

FIRST_ATTEMPT_WAITS = """
def handle(order, context):
    note(order)
    if order.attempt == 1 and os.path.exists("hold"):
        wait_for("gate")
    note(order, "ended", cancel_requested=context.cancel_requested)
"""

WRITES = """
def handle(order, context):
    note(order)
    context.transaction().execute("INSERT INTO ledger VALUES (%s, %s)", [order.order_id, order.attempt])
"""


def stall(queue: Queue, worker: Worker, wait_until: Callable[..., Any]) -> str:
    """Stop the worker until it is declared dead; return the id that it had."""
    worker_id = queue.worker_id(worker)
    assert worker_id is not None
    worker.send(signal.SIGSTOP)
    wait_until(lambda: queue.worker_id(worker) is None)
    return worker_id


def test_stalled_workers_late_result_changes_nothing_and_it_goes_on_under_a_new_id(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    open_gate("hold")
    stalled = start_worker(FIRST_ATTEMPT_WAITS, **SHORT)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    other = start_worker(FIRST_ATTEMPT_WAITS, **SHORT)
    old_id = stall(queue, stalled, wait_until)
    finished = queue.until(order_id, "completed")
    assert (finished.attempt, finished.worker_id) == (2, queue.worker_id(other))

    stalled.send(signal.SIGCONT)
    open_gate()
    wait_until(lambda: len(notes("ended")) == 2)
    new_id = wait_until(lambda: queue.worker_id(stalled))

    assert new_id != old_id
    assert queue.find(order_id) == finished
    assert other.stop() == 0
    later = queue.until(queue.submit_one(), "completed")
    assert (later.attempt, later.worker_id) == (1, new_id)
    assert notes()[-1]["pid"] == stalled.pid
    assert queue.find(order_id) == finished


def test_late_result_of_a_worker_that_has_not_heard_of_its_death_is_lost(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    open_gate("hold")
    # It beats every ten seconds and has no free slot: nothing tells it.
    unaware = start_worker(FIRST_ATTEMPT_WAITS, ORDERS_LEASE_SECONDS=30)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    queue.connection.execute("UPDATE workers SET dead_at = clock_timestamp()")
    start_worker(FIRST_ATTEMPT_WAITS)
    finished = queue.until(order_id, "completed")
    assert finished.attempt == 2

    open_gate()

    wait_until(lambda: "claim_lost" in unaware.log)
    assert queue.find(order_id) == finished
    assert queue.attempts(order_id) == [(1, "rescued")]
    wait_until(lambda: queue.worker_id(unaware))


def test_stalled_worker_with_free_slots_claims_nothing_under_its_dead_id(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    stalled = start_worker(ORDERS_CONCURRENCY=4, **SHORT)
    other = start_worker(**SHORT)
    old_id = stall(queue, stalled, wait_until)
    assert other.stop() == 0
    ids = queue.submit(4)

    stalled.send(signal.SIGCONT)

    for order_id in ids:
        order = queue.until(order_id, "completed")
        assert order.attempt == 1
        assert order.worker_id == queue.worker_id(stalled) != old_id


def test_worker_stopped_between_completing_update_and_commit_loses_the_order_within_its_lease(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid, attempt integer)")
    queue.connection.execute("""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE TRIGGER dawdle AFTER UPDATE ON orders FOR EACH ROW
        WHEN (NEW.status = 'completed' AND NEW.attempt = 1) EXECUTE FUNCTION dawdle();
    """)
    stalled = start_worker(WRITES, ORDERS_LEASE_SECONDS=2)
    order_id = queue.submit_one()
    in_update = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'orders-handler' AND wait_event = 'PgSleep'
    """
    wait_until(lambda: queue.one(in_update))
    stalled.send(signal.SIGSTOP)
    idle = """
        SELECT max(state_change) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'
    """
    idle_at = wait_until(lambda: queue.one(idle))

    wait_until(lambda: queue.one(idle) is None)
    free_after = queue.one("SELECT EXTRACT(epoch FROM clock_timestamp() - %s)", idle_at)
    other = start_worker(WRITES, ORDERS_LEASE_SECONDS=2)

    order = queue.until(order_id, "completed")
    print("free after", free_after)
    assert free_after < 2
    assert (order.attempt, order.worker_id) == (2, queue.worker_id(other))
    stalled.send(signal.SIGCONT)
    wait_until(lambda: queue.worker_id(stalled))
    assert queue.find(order_id) == order
    assert queue.all("SELECT order_id, attempt FROM ledger") == [(order_id, 2)]
