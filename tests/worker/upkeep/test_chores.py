from collections.abc import Callable
from typing import Any

from orders_worker.upkeep.chores import Chores
from schema.queue import idempotency, rescue
from schema.runtime.connection import Connection
from tests.worker.conftest import StartWorker

OLD_KEYS = """
INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, created_at)
SELECT n, gen_random_uuid(), '', '2001-01-01'
FROM generate_series(1, %s) AS n
"""


def keys(connection: Connection) -> int:
    return connection.execute("SELECT FROM idempotency_keys").rowcount


def test_old_keys_are_pruned_to_the_last_though_one_prune_is_bounded(
    start_worker: StartWorker, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    connection.execute(OLD_KEYS, (idempotency.LIMIT + 1,))

    start_worker()

    wait_until(lambda: keys(connection) == 0)


def test_tally_is_folded(
    start_worker: StartWorker, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    connection.execute("INSERT INTO tally_changes (pending) SELECT 1 FROM generate_series(1, 25000)")

    start_worker()

    wait_until(lambda: connection.execute("SELECT pending FROM tally").fetchone() == (25_000,))


def test_refused_prune_of_workers_does_not_keep_old_keys(
    start_worker: StartWorker, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    connection.execute(OLD_KEYS, (1,))
    connection.execute(
        "INSERT INTO workers (worker_id, dead_at, swept_at) VALUES ('w', '2001-01-01', '2001-01-01')"
    )
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        " CREATE TRIGGER refuse BEFORE DELETE ON workers FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    worker = start_worker()

    wait_until(lambda: keys(connection) == 0)
    assert connection.execute("SELECT FROM workers WHERE worker_id = 'w'").rowcount == 1
    assert "chore=prune_workers" in worker.log


ORPHANS = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, attempt, worker_id, started_at)
SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'processing', 1, 'nobody', clock_timestamp()
FROM generate_series(1, %s)
"""


def test_patrol_goes_on_at_once_while_its_pages_are_full_of_orphans(connection: Connection) -> None:
    connection.execute(ORPHANS, (rescue.PATROL_LIMIT + 1,))
    chores = Chores(on_orders=lambda: None)

    pauses = [chores.tick(connection), chores.tick(connection)]

    assert pauses[0] == 0 < pauses[1]
    assert connection.execute("SELECT FROM orders WHERE in_line").rowcount == rescue.PATROL_LIMIT + 1
