import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from schema import orders, wake
from schema.connection import Connection
from tests.worker.conftest import NEW_ORDER, Queue, StartWorker

SLIGHTLY_BUSY = """
def handle(order, context):
    note(order)
    time.sleep(0.001)
"""


def test_three_workers_and_four_clients_work_5000_orders_once_each_in_the_order_of_their_tickets(
    start_worker: StartWorker, queue: Queue, connect: Callable[[], Connection], notes: Callable[..., Any]
) -> None:
    for _ in range(3):
        start_worker(SLIGHTLY_BUSY, ORDERS_CONCURRENCY=8, ORDERS_LEASE_SECONDS=10)
    ids: list[UUID] = []

    def post(connection: Connection) -> None:
        for number in range(1250):
            ids.append(orders.submit(connection, NEW_ORDER))
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
    assert queue.inversions() == []


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
    assert queue.inversions() == []


def test_check_finds_an_order_that_was_passed_by(queue: Queue) -> None:
    queue.connection.execute("""
        INSERT INTO orders (order_id, user_id, item_ids, total_amount, seq, status, attempt, attempt_limit,
                            created_at, queued_at, started_at, finished_at)
        SELECT gen_random_uuid(), 'ada', '{tea}', 1, ticket, 'completed', 1, 5,
               moment, moment, moment + make_interval(secs => waited), clock_timestamp()
        FROM (SELECT clock_timestamp() - INTERVAL '1 minute') AS began (moment),
             (VALUES (1, 0.1), (2, 3.0), (3, 2.9), (4, 0.45), (5, 0.4)) AS orders (ticket, waited)
    """)

    # 4 was passed by 5 too, but had not been in line for half a second.
    assert queue.inversions() == [(2, 3)]
