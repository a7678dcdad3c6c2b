"""A real orders-worker whose role has what `orders grants` gives, and nothing else."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from schema.queue import submit
from schema.queue.cancel import cancel
from schema.runtime.connection import Connection
from tests.roles import Guarded
from tests.worker.conftest import NEW_ORDER, Queue, StartWorker
from tests.worker.health.test_health import address, ask, reasons

HANDLER = """
from orders_worker.handler import Retry

def handle(order, context):
    note(order)
    if order.user_id == "reject":
        raise Reject("no")
    if order.user_id == "retry" and order.attempt == 1:
        raise Retry("once more", after=0.1)
    if order.user_id == "write":
        context.transaction().execute("INSERT INTO done VALUES (%s)", [order.order_id])
    if order.user_id == "cancel":
        while not context.cancel_requested:
            time.sleep(0.01)
        raise Cancelled
    if order.user_id == "gate":
        wait_for("gate")
"""

OLD = """
CREATE TABLE done (order_id uuid);
GRANT INSERT ON done TO worker;
INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, created_at)
VALUES ('old', gen_random_uuid(), '', clock_timestamp() - INTERVAL '25 hours');
INSERT INTO workers (worker_id, dead_at, swept_at)
VALUES ('old', clock_timestamp() - INTERVAL '2 days', clock_timestamp() - INTERVAL '2 days');
INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, attempt, attempt_limit, worker_id,
                    started_at)
VALUES (gen_random_uuid(), 'orphan', '{tea}', 1, 'processing', 1, 5, 'nobody', clock_timestamp())
"""

NOTHING_LEFT = """
SELECT NOT EXISTS (SELECT FROM idempotency_keys)
   AND NOT EXISTS (SELECT FROM workers WHERE worker_id = 'old')
   AND NOT EXISTS (SELECT FROM workers WHERE dead_at IS NOT NULL AND swept_at IS NULL)
   AND NOT EXISTS (SELECT FROM tally_changes)
   AND (SELECT completed FROM tally) = 6
"""


@pytest.fixture
def owner(guarded: Guarded) -> Iterator[Connection]:
    with Connection.open(guarded.url, name="test") as connection:
        yield connection


def test_worker_of_its_own_role_does_all_its_work(
    start_worker: StartWorker,
    guarded: Guarded,
    owner: Connection,
    wait_until: Callable[..., Any],
    open_gate: Any,
) -> None:
    guarded.grant("worker")
    owner.execute(OLD)
    queue = Queue(owner, wait_until)

    def place(user_id: str) -> Any:
        return submit.submit(owner, replace(NEW_ORDER, user_id=user_id))

    first = start_worker(HANDLER, url=guarded.url_of("worker"), ORDERS_CONCURRENCY=4, ORDERS_HEALTH_PORT=0)
    plain, written, rejected, retried, cancelled = map(place, ("ada", "write", "reject", "retry", "cancel"))
    queue.until(cancelled, "processing")
    cancel(owner, cancelled)
    for order_id, status in (
        (plain, "completed"),
        (written, "completed"),
        (rejected, "failed"),
        (retried, "completed"),
        (cancelled, "cancelled"),
    ):
        queue.until(order_id, status)
    killed = place("gate")
    queue.until(killed, "processing")
    first.send(signal.SIGKILL)
    second = start_worker(HANDLER, url=guarded.url_of("worker"), ORDERS_HEALTH_PORT=0)
    wait_until(lambda: queue.find(killed).attempt == 2)
    open_gate()
    queue.until(killed, "completed")
    place("ada")
    wait_until(lambda: owner.one(NOTHING_LEFT) == (True,))

    assert second.stop() == 0
    assert queue.one("SELECT count(*) FROM done") == 1
    assert {line.split()[2] for line in first.warnings + second.warnings} == {"worker_declared_dead"}
    assert "ERROR" not in second.log
    assert "worker_unhealthy" not in first.log + second.log


@pytest.mark.parametrize(
    "privileges",
    ["UPDATE (status) ON orders", "SELECT ON queue", "SELECT, INSERT, UPDATE, DELETE ON workers"],
)
def test_worker_that_loses_a_privilege_says_so_until_it_has_it_again(
    start_worker: StartWorker,
    guarded: Guarded,
    owner: Connection,
    wait_until: Callable[..., Any],
    privileges: str,
) -> None:
    guarded.grant("worker")
    worker = start_worker(url=guarded.url_of("worker"), ORDERS_HEALTH_PORT=0)
    wait_until(lambda: address(worker))

    owner.execute(f"REVOKE {privileges} FROM worker")
    wait_until(lambda: reasons(worker) == ["privilege_missing"])

    detail = ask(worker)[1]["detail"]
    assert "`orders grants`" in detail
    assert "permission denied" not in detail
    wait_until(lambda: "reasons=privilege_missing" in worker.log)
    guarded.grant("worker")
    wait_until(lambda: ask(worker) == (200, {"status": "ready"}))
    order_id = submit.submit(owner, NEW_ORDER)
    Queue(owner, wait_until).until(order_id, "completed")


def test_worker_from_whom_row_level_security_may_hide_orders_warns_of_it_once(
    start_worker: StartWorker, guarded: Guarded, owner: Connection, wait_until: Callable[..., Any]
) -> None:
    guarded.grant("worker")
    owner.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")

    worker = start_worker(url=guarded.url_of("worker"))

    wait_until(lambda: "WARNING row_security_may_hide_orders" in worker.log)
    owner.execute("CREATE POLICY all_of_them ON orders TO worker USING (true)")
    order_id = submit.submit(owner, NEW_ORDER)
    Queue(owner, wait_until).until(order_id, "completed")
    assert worker.stop() == 0
    assert worker.log.count("row_security_may_hide_orders") == 1
