"""What the API keeps of its promises behind a PgBouncer."""

from collections.abc import Callable
from typing import Any

import pytest

from schema.queue import wake
from schema.runtime.connection import Connection
from tests.api.conftest import Api, StartApi
from tests.pooler import Pooler, StartPooler

pytestmark = pytest.mark.needs("pgbouncer")


@pytest.fixture
def pooler(start_pooler: StartPooler) -> Pooler:
    return start_pooler(default_pool_size=1)


@pytest.fixture
def api(start_api: StartApi, pooler: Pooler, database_url: str) -> Api:
    return start_api(pooler.through(database_url))


def test_orders_are_committed_durably_after_any_number_of_wake_ups(
    api: Api, pooler: Pooler, database_url: str, connection: Connection, durabilities: Callable[[], list[str]]
) -> None:
    connection.execute(
        "CREATE TRIGGER see AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION see_durability()"
    )

    for _ in range(10):
        assert api.post().status == 201

    assert durabilities() == ["on"] * 10
    with Connection.open(pooler.through(database_url), name="test") as client:
        assert client.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


@pytest.mark.direct("LISTEN")
def test_order_placed_through_a_pooler_wakes_workers_that_listen_directly(
    api: Api, connection: Connection
) -> None:
    wake.listen(connection)

    assert api.post().status == 201

    assert [notice.channel for notice in connection.notifies(timeout=10, stop_after=1)] == [wake.CHANNEL]


def test_pooler_that_restarts_is_away_for_a_moment_only(
    api: Api, pooler: Pooler, stored: Callable[[], int], wait_until: Callable[..., Any]
) -> None:
    assert api.post().status == 201

    pooler.stop()
    assert api.post().status == 503
    pooler.start()

    wait_until(lambda: api.call("GET", "/readyz").status == 200, seconds=10)
    assert api.post().status == 201
    assert stored() == 2


def test_full_pool_is_an_answer_not_a_hang(
    start_api: StartApi, start_pooler: StartPooler, database_url: str
) -> None:
    url = start_pooler(default_pool_size=1, query_wait_timeout=1).through(database_url)
    api = start_api(url)
    with Connection.open(url, name="holder") as holder:
        with holder.transaction():
            holder.execute("SELECT 1")
            assert api.post().status == 503
        assert api.call("GET", "/healthz").status == 200
