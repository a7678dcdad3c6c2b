"""What a worker keeps of its promises behind a PgBouncer: no wake-up, no session lock, the lease alone."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.pooler import Pooler, StartPooler
from tests.worker.conftest import Queue, StartWorker

pytestmark = pytest.mark.needs("pgbouncer")

FIRST_ONE_HANGS = """
def handle(order, context):
    note(order)
    if order.attempt == 1:
        wait_for("gate")
"""

BOOKS = """
def handle(order, context):
    row = [order.order_id, order.attempt]
    context.transaction().execute("INSERT INTO ledger VALUES (%s, %s)", row)
    note(order)
"""


@pytest.fixture
def pooler(start_pooler: StartPooler) -> Pooler:
    return start_pooler()


@pytest.fixture
def url(pooler: Pooler, database_url: str) -> str:
    return pooler.through(database_url)


@pytest.fixture
def ledger(queue: Queue) -> Callable[[], list[Any]]:
    queue.connection.execute("CREATE TABLE ledger (order_id uuid, attempt integer)")
    return lambda: queue.all("SELECT order_id, attempt FROM ledger")


def test_worker_says_once_that_no_wake_up_comes_and_polls(
    start_worker: StartWorker, queue: Queue, pooler: Pooler, url: str, wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(url=url, ORDERS_POLL_SECONDS=0.2)
    queue.until(queue.submit_one(), "completed")

    pooler.stop()
    wait_until(lambda: "connection=housekeeping error" in worker.log)
    pooler.start()
    queue.until(queue.submit_one(), "completed")
    wait_until(
        lambda: "orders-housekeeping" in {row["application_name"] for row in pooler.command("SHOW CLIENTS")}
    )

    assert worker.log.count("no_wake_up_behind_a_pooler") == 1
    assert worker.log.count("statement_timeout_unset_behind_a_pooler") == 1
    assert queue.all("SELECT session_key FROM workers") == [(None,)]
    assert worker.stop() == 0


def test_killed_workers_order_is_claimed_again_when_its_lease_is_over(
    start_worker: StartWorker,
    queue: Queue,
    url: str,
    notes: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    victim = start_worker(FIRST_ONE_HANGS, url=url, ORDERS_LEASE_SECONDS=2)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))
    start_worker(FIRST_ONE_HANGS, url=url, ORDERS_LEASE_SECONDS=2)

    killed_at = queue.one("SELECT clock_timestamp()")
    victim.send(signal.SIGKILL)

    order = queue.until(order_id, "completed")
    assert order.started_at is not None
    seconds = (order.started_at - killed_at).total_seconds()
    print("claimed again after", seconds)
    assert order.attempt == 2
    # The lease, and the next look of the other.
    assert seconds < 5


def test_stopped_workers_open_transaction_ends_within_its_lease(
    start_worker: StartWorker,
    queue: Queue,
    url: str,
    ledger: Callable[[], list[Any]],
    notes: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    stopped = start_worker(f"{BOOKS}\n    wait_for('gate')", url=url, ORDERS_LEASE_SECONDS=2)
    order_id = queue.submit_one()
    wait_until(notes)
    stopped.send(signal.SIGSTOP)
    stopped_at = queue.one("SELECT clock_timestamp()")

    idle = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    wait_until(lambda: not queue.all(idle))

    assert queue.one("SELECT EXTRACT(epoch FROM clock_timestamp() - %s)", stopped_at) < 2
    start_worker(BOOKS, url=url, ORDERS_LEASE_SECONDS=2)
    queue.until(order_id, "completed")
    assert ledger() == [(order_id, 2)]


def test_locks_of_a_killed_workers_transaction_are_free_at_once(
    start_worker: StartWorker,
    queue: Queue,
    url: str,
    ledger: Callable[[], list[Any]],
    notes: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker(
        f"{BOOKS}\n    context.transaction().execute('LOCK TABLE ledger; SELECT pg_sleep(60)')",
        url=url,
        ORDERS_LEASE_SECONDS=4,
    )
    queue.submit_one()
    wait_until(notes)
    locked = "SELECT FROM pg_locks WHERE relation = 'ledger'::regclass AND mode = 'AccessExclusiveLock'"
    wait_until(lambda: queue.all(locked))

    worker.process.kill()

    # The server looks for its client, which is the pooler, twice a lease.
    wait_until(lambda: not queue.all(locked), seconds=4)
    assert ledger() == []


def test_pooler_restarted_in_the_middle_of_handlers_moves_no_order(
    start_worker: StartWorker,
    queue: Queue,
    pooler: Pooler,
    url: str,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    settings: dict[str, Any] = {"url": url, "ORDERS_CONCURRENCY": 4, "ORDERS_LEASE_SECONDS": 4}
    workers = [start_worker("handle = gated", **settings) for _ in range(2)]
    queue.submit(8)
    wait_until(lambda: len(notes("begun")) == 8)

    pooler.stop()
    open_gate()
    wait_until(lambda: len(notes("ended")) == 8)
    wait_until(lambda: all("connection=dispatcher error" in worker.log for worker in workers))
    pooler.start()

    queue.until_all("completed")
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert queue.one("SELECT count(*) FROM workers") == 2


def test_server_restarted_behind_the_pooler_moves_no_order(
    start_worker: StartWorker,
    start_pooler: StartPooler,
    private_server: Server,
    private_url: str,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    url = start_pooler(private_url).url
    settings: dict[str, Any] = {"url": url, "ORDERS_CONCURRENCY": 4, "ORDERS_LEASE_SECONDS": 2}
    for _ in range(2):
        start_worker("handle = gated", **settings)
    with Connection.open(url, name="test") as connection:
        Queue(connection, wait_until).submit(8)
    wait_until(lambda: len(notes("begun")) == 8)

    private_server.stop("immediate")
    private_server.ensure_running()

    with Connection.open(private_url, name="test") as connection:
        queue = Queue(connection, wait_until)
        # As long as it takes to be judged: a worker that was not heard again would lose its orders.
        back_at = queue.one("SELECT pg_postmaster_start_time()")
        wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '5 s'", back_at))
        open_gate()
        queue.until_all("completed")
        assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
        assert queue.one("SELECT count(*) FROM workers") == 2


@pytest.mark.slow
def test_pooler_paused_for_most_of_a_lease_moves_no_order(
    start_worker: StartWorker,
    queue: Queue,
    pooler: Pooler,
    url: str,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    settings: dict[str, Any] = {"url": url, "ORDERS_CONCURRENCY": 4, "ORDERS_LEASE_SECONDS": 6}
    for _ in range(3):
        start_worker("handle = gated", **settings)
    queue.submit(12)
    wait_until(lambda: len(notes("begun")) == 12)

    # Who has been there for less than a lease judges nobody.
    wait_until(lambda: queue.one("SELECT clock_timestamp() - max(started_at) > '6.5 s' FROM workers"))

    pooler.command("PAUSE")
    # Everyone's beat is overdue then, and those who look for the dead are no better off.
    wait_until(lambda: queue.one("SELECT clock_timestamp() - max(heartbeat_at) > '6.2 s' FROM workers"))
    pooler.command("RESUME")

    resumed_at = queue.one("SELECT clock_timestamp()")
    wait_until(lambda: queue.one("SELECT clock_timestamp() > %s + INTERVAL '3 s'", resumed_at))
    open_gate()
    queue.until_all("completed")
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert queue.one("SELECT count(*) FROM workers") == 3


def test_pool_of_one_session_loses_and_repeats_nothing(
    start_worker: StartWorker,
    queue: Queue,
    start_pooler: StartPooler,
    database_url: str,
    ledger: Callable[[], list[Any]],
) -> None:
    url = start_pooler(default_pool_size=1, query_wait_timeout=2).through(database_url)
    for _ in range(2):
        start_worker(BOOKS, url=url, ORDERS_CONCURRENCY=4, ORDERS_LEASE_SECONDS=10)
    ids = queue.submit(100)

    queue.until_all("completed")

    assert sorted(order_id for order_id, _ in ledger()) == sorted(ids)


def test_sessions_that_the_pooler_closes_for_being_idle_are_opened_again(
    start_worker: StartWorker, queue: Queue, start_pooler: StartPooler, database_url: str
) -> None:
    url = start_pooler(client_idle_timeout=1).through(database_url)
    # It beats, and looks for the dead, less often than that; so the pooler hangs up on it all the time.
    worker = start_worker(url=url, ORDERS_LEASE_SECONDS=30)

    for _ in range(20):
        queue.until(queue.submit_one(), "completed")

    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert worker.stop() == 0
