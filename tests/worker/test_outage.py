from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.worker.conftest import Queue, StartWorker

BUSY = """
def handle(order, context):
    note(order)
    time.sleep(0.002)
"""

EVEN_AND_ODD = """
def handle(order, context):
    note(order)
    wait_for("odd" if order.seq % 2 else "even")
    note(order, "ended")
"""


@pytest.mark.direct("session locks")
def test_killed_heartbeat_session_moves_no_order_and_its_lock_is_held_again_within_2_seconds(
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker("handle = gated", ORDERS_LEASE_SECONDS=10)
    start_worker("handle = gated", ORDERS_LEASE_SECONDS=10)
    ids = queue.submit(2)
    wait_until(lambda: len(notes("begun")) == 2)
    held = """
        SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND pid <> ALL (%s)
    """
    before = [
        row[0]
        for row in queue.all("SELECT pid FROM pg_stat_activity WHERE application_name = 'orders-heartbeat'")
    ]
    killed_at = queue.one("SELECT clock_timestamp()")

    assert queue.terminate("orders-heartbeat") == 2
    wait_until(lambda: queue.one(held, before) == 2)
    seconds = queue.one("SELECT EXTRACT(epoch FROM clock_timestamp() - %s)", killed_at)
    # Long enough for the others to judge: a session that stayed away would be declared dead by now.
    wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '4 s'", killed_at))
    open_gate()
    queue.until_all("completed")

    print("lock held again after", seconds)
    assert seconds < 2
    assert [queue.find(order_id).attempt for order_id in ids] == [1, 1]
    assert queue.worker_id(worker) is not None
    assert queue.one("SELECT count(*) FROM workers") == 2


@pytest.mark.slow
def test_dispatcher_sessions_killed_under_load_lose_nothing_and_repeat_nothing(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    start_worker(BUSY, ORDERS_CONCURRENCY=8, ORDERS_LEASE_SECONDS=10)
    ids = queue.submit(800)

    kills = 0
    while queue.counts().get("completed", 0) < 800:
        kills += queue.terminate("orders-dispatcher")
        seen = queue.counts().get("completed", 0)
        # Let it get some work done in between, a different amount each time.
        wait_until(lambda: queue.counts().get("completed", 0) >= min(seen + 1 + kills * 7 % 60, 800))  # noqa: B023

    assert kills > 5
    assert Counter(line["order_id"] for line in notes()) == Counter(map(str, ids))
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]


def test_server_restarted_in_the_middle_of_long_handlers_moves_no_order(
    start_worker: StartWorker,
    private_server: Server,
    private_url: str,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    settings: dict[str, Any] = {"url": private_url, "ORDERS_CONCURRENCY": 4, "ORDERS_LEASE_SECONDS": 1}
    start_worker(EVEN_AND_ODD, **settings)
    start_worker(EVEN_AND_ODD, **settings)
    with Connection.open(private_url, name="test") as connection:
        queue = Queue(connection, wait_until)
        queue.submit(8)
        wait_until(lambda: len(notes("begun")) == 8)
        workers = queue.all("SELECT worker_id FROM orders ORDER BY seq")

    private_server.stop("immediate")
    open_gate("even")
    wait_until(lambda: len(notes("ended")) == 4)
    private_server.ensure_running()

    with Connection.open(private_url, name="test") as connection:
        queue = Queue(connection, wait_until)
        wait_until(lambda: queue.counts() == {"completed": 4, "processing": 4})
        # As long as it takes to be judged: a worker that was not heard again would lose its orders.
        back_at = queue.one("SELECT pg_postmaster_start_time()")
        wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '4 s'", back_at))
        open_gate("odd")
        queue.until_all("completed")
        assert queue.all("SELECT worker_id FROM orders ORDER BY seq") == workers
        assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
        assert queue.one("SELECT count(*) FROM attempts") == 0
    assert len(notes("begun")) == len(notes("ended")) == 8


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file "base/1/2"'; END $$;
CREATE TRIGGER full_disk BEFORE UPDATE ON orders EXECUTE FUNCTION full_disk();
CREATE TRIGGER full_disk BEFORE UPDATE ON workers EXECUTE FUNCTION full_disk();
"""


def test_full_disk_is_called_one_and_no_lost_connection(
    start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(ORDERS_LEASE_SECONDS=30)
    queue.connection.execute(FULL)
    order_id = queue.submit_one()

    wait_until(lambda: "worker_unhealthy" in worker.log)
    queue.connection.execute("DROP FUNCTION full_disk CASCADE")
    queue.until(order_id, "completed")

    assert "connection_lost" not in worker.log
    assert "reasons=database_full detail" in worker.log
    assert "chore_refused" not in worker.log
    assert "WARNING statement_failed" in worker.log
    assert 'connection=dispatcher error="DatabaseFullError: DiskFull: could not extend file' in worker.log
    wait_until(lambda: "INFO statements_succeed" in worker.log)


def test_level_of_the_log_is_a_setting(start_worker: StartWorker, queue: Queue) -> None:
    # Behind a pooler the log would tell when it is there.
    worker = start_worker(
        "def handle(order, context): raise ValueError",
        ready=False,
        ORDERS_LOG_LEVEL="error",
        ORDERS_MAX_ATTEMPTS=1,
    )

    queue.until(queue.submit_one(), "failed")

    assert worker.stop() == 0
    assert "ERROR handler_raised" in worker.log
    assert "INFO" not in worker.log
    assert "WARNING" not in worker.log
