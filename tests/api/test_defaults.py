"""What the API promises whatever a database's defaults are."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schema import migrate
from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.api.conftest import ORDER, StartApi
from tests.conftest import Alter
from tests.servers import temporary_server


@pytest.fixture
def forgetful_server(store: Path) -> Iterator[Server]:
    """A server that leaves what is committed asynchronously in memory for ten seconds."""
    with temporary_server(store=store, wal_writer_delay="10s") as server:
        server.ensure_running()
        yield server


def test_acknowledged_orders_survive_a_crash_where_commits_are_asynchronous_by_default(
    start_api: StartApi, forgetful_server: Server
) -> None:
    migrate.upgrade(forgetful_server.url)
    with Connection.open(forgetful_server.url, name="test") as connection:
        connection.execute("ALTER DATABASE orders SET synchronous_commit = off")
    api = start_api(forgetful_server.url)

    placed = [api.post().json["order_id"] for _ in range(20)]
    keyed = {"Idempotency-Key": "tea"}
    placed.append(api.call("POST", "/orders", ORDER, keyed).json["order_id"])
    placed += api.call("POST", "/orders/batch", {"orders": [ORDER, ORDER]}).json["order_ids"]
    forgetful_server.stop("immediate")
    forgetful_server.ensure_running()

    with Connection.open(forgetful_server.url, name="test") as connection:
        stored = {str(order_id) for (order_id,) in connection.execute("SELECT order_id FROM orders")}
    assert stored >= set(placed)


@pytest.mark.direct("its sessions are its own, with settings")
def test_orders_that_come_at_once_are_placed_where_transactions_are_serializable_by_default(
    start_api: StartApi,
    database_url: str,
    alter: Alter,
    stored: Callable[[], int],
    threads: ThreadPoolExecutor,
) -> None:
    alter(default_transaction_isolation="serializable")
    api = start_api(database_url)

    def post(number: int) -> int:
        return api.call("POST", "/orders", ORDER, {"Idempotency-Key": str(number // 4)}).status

    assert set(threads.map(post, range(200))) == {201}
    assert stored() == 50
