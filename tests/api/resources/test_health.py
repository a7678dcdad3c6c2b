from typing import Any

import pytest
from falcon.testing import TestClient

from orders_api.app import create_app
from orders_api.database.pool import Database
from schema.runtime.connection import Connection
from tests.api.conftest import Relay, Submitted


@pytest.fixture
def client_of_away(relay: Relay, submitted: Submitted) -> Any:
    relay.away()
    with Database(relay.url, size=2, wait_seconds=0.05) as database:
        yield TestClient(create_app(database, submitted, simulated_seconds=2))


def test_process_is_healthy_and_ready_with_a_migrated_database(client: TestClient) -> None:
    assert client.simulate_get("/healthz").status_code == 200
    assert client.simulate_get("/readyz").json == {"status": "ready"}


def test_process_is_healthy_but_not_ready_while_the_database_is_away(client_of_away: TestClient) -> None:
    assert client_of_away.simulate_get("/healthz").status_code == 200
    answer = client_of_away.simulate_get("/readyz")

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert "database can't be reached" in answer.json["detail"]


def test_outdated_schema_is_not_ready_and_the_reason_names_the_remedy(
    client: TestClient, connection: Connection
) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '0000'")

    answer = client.simulate_get("/readyz")

    assert answer.status_code == 503
    assert answer.json["type"] == "/problems/not-ready"
    assert "orders migrate" in answer.json["detail"]


def test_unmigrated_database_is_not_ready(empty_database_url: str, submitted: Submitted) -> None:
    with Database(empty_database_url, size=1, wait_seconds=10) as database:
        client = TestClient(create_app(database, submitted, simulated_seconds=2))

        answer = client.simulate_get("/readyz")

    assert answer.status_code == 503
    assert "orders migrate" in answer.json["detail"]


def test_schema_that_asks_for_a_newer_release_is_not_ready(
    client: TestClient, connection: Connection
) -> None:
    connection.execute("UPDATE queue SET requires_revision = '9999'")

    answer = client.simulate_get("/readyz")

    assert answer.status_code == 503
    assert "newer release" in answer.json["detail"]
