import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from schema.queue import redrive, submit, wake
from schema.reports import audit
from schema.runtime.connection import Connection
from tests.worker.conftest import NEW_ORDER, Queue, StartWorker

SLIGHTLY_BUSY = """
def handle(order, context):
    note(order)
    time.sleep(0.001)
"""


@pytest.mark.proof
def test_three_workers_and_four_clients_work_5000_orders_once_each_in_the_order_of_their_tickets(
    start_worker: StartWorker, queue: Queue, connect: Callable[[], Connection], notes: Callable[..., Any]
) -> None:
    for _ in range(3):
        start_worker(SLIGHTLY_BUSY, ORDERS_CONCURRENCY=8, ORDERS_LEASE_SECONDS=10)
    ids: list[UUID] = []

    def post(connection: Connection) -> None:
        for number in range(1250):
            ids.append(submit.submit(connection, NEW_ORDER))
            if number % 50 == 0:
                wake.notify(connection)

    clients = [threading.Thread(target=post, args=[connect()]) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    queue.until_all("completed", seconds=60)

    assert Counter(line["order_id"] for line in notes()) == Counter(map(str, ids))
    assert queue.all("SELECT DISTINCT attempt FROM orders") == [(1,)]
    assert audit.check(queue.connection).is_clean


STUMBLING = """
def handle(order, context):
    if order.attempt == 1 and order.seq <= 8:
        note(order, "stuck")
        wait_for("never")
    if order.attempt == 1 and order.seq % 7 == 0:
        raise RuntimeError("it broke")
    if order.attempt == 1 and order.seq % 50 == 0:
        raise Reject("no")
"""


@pytest.mark.proof
def test_record_of_releases_rescues_retries_and_redrives_is_clean(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    settings: dict[str, Any] = {"ORDERS_CONCURRENCY": 4, "ORDERS_SHUTDOWN_SECONDS": 0}
    killed = start_worker(STUMBLING, **settings)
    stopped = start_worker(STUMBLING, **settings)
    queue.submit(400)
    wake.notify(queue.connection)
    wait_until(lambda: len(notes("stuck")) == 8)
    killed.send(signal.SIGKILL)
    stopped.stop()
    for _ in range(2):
        start_worker(STUMBLING, **settings)
    wait_until(lambda: set(queue.counts()) == {"completed", "failed"})
    for (order_id,) in queue.all("SELECT order_id FROM orders WHERE status = 'failed'"):
        redrive.redrive(queue.connection, order_id, attempts=2)
    queue.until_all("completed")

    verdict = audit.check(queue.connection)

    ends = dict(queue.all("SELECT outcome, count(*) FROM attempts GROUP BY outcome"))
    assert ends == {"rescued": 4, "released": 4, "raised": 56, "rejected": 7}
    assert list(verdict.lines()) == ["471 claims on 400 orders: no inversion, no double start"]


LINE = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), 'ada', '{tea}', 1
FROM generate_series(1, %s)
"""


@pytest.mark.proof
@pytest.mark.direct("a transaction across several statements")
def test_order_committed_late_is_begun_before_the_line_ends_also_while_a_snapshot_is_held(
    start_worker: StartWorker, queue: Queue, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    late, report = connect(), connect()
    late.execute("BEGIN")
    late.execute(LINE, (1,))
    queue.connection.execute(LINE, (20_000,))
    report.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    report.execute("SELECT count(*) FROM orders")
    start_worker("def handle(order, context): pass", ORDERS_CONCURRENCY=10)
    wait_until(lambda: queue.one("SELECT count(*) FROM orders WHERE status = 'completed'") > 2000)

    late.execute("COMMIT")
    queue.until_all("completed", seconds=60)

    behind = "SELECT count(*) FROM orders WHERE started_at > (SELECT started_at FROM orders WHERE seq = 1)"
    assert 0 < queue.one(behind) < 18_000


@pytest.mark.slow
def test_backlog_is_begun_in_the_order_of_its_tickets(
    start_worker: StartWorker, queue: Queue, notes: Callable[..., Any]
) -> None:
    queue.submit(3000)
    queue.connection.execute("UPDATE orders SET queued_at = queued_at - INTERVAL '1 minute'")
    for _ in range(3):
        start_worker(SLIGHTLY_BUSY, ready=False, ORDERS_CONCURRENCY=8, ORDERS_LEASE_SECONDS=10)
    queue.until_all("completed", seconds=60)

    assert len(notes()) == 3000
    assert audit.check(queue.connection).is_clean
