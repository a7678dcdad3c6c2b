from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from falcon.testing import TestClient

from orders_api.app import create_app
from schema.errors import OutcomeUnknownError
from schema.runtime.connection import Connection
from tests.api.conftest import Submitted

ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "cup"], "total_amount": 250.75}


def test_placed_order_is_answered_as_the_original_service_did(client: TestClient) -> None:
    answer = client.simulate_post("/orders", json=ORDER)

    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"message": "Order placed successfully", "order_id": answer.json["order_id"]}
    assert UUID(answer.json["order_id"]).version == 7


def test_placed_order_is_committed_and_pending(client: TestClient, connection: Connection) -> None:
    order_id = client.simulate_post("/orders", json=ORDER).json["order_id"]

    row = connection.execute(
        "SELECT user_id, item_ids, total_amount, status FROM orders WHERE order_id = %s", (order_id,)
    ).fetchone()
    assert row == ("ada", ["tea", "cup"], Decimal("250.75"), "pending")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_items_that_an_array_has_to_quote_are_kept(
    client: TestClient, connection: Connection, headers: dict[str, str]
) -> None:
    items = ['say "tea"', "a\\b", "{1,2}", "null", " , ", "a\tb\nc", '"', "\\"]
    placed = client.simulate_post("/orders", json={**ORDER, "item_ids": items}, headers=headers)

    assert placed.status_code == 201
    row = connection.execute("SELECT item_ids FROM orders").fetchone()
    assert row == (items,)


def test_location_of_a_placed_order_leads_to_it(client: TestClient) -> None:
    placed = client.simulate_post("/orders", json=ORDER)

    found = client.simulate_get(placed.headers["location"])

    assert found.status_code == 200
    assert found.json["order_id"] == placed.json["order_id"]


def test_workers_are_woken_once_for_each_placed_order(client: TestClient, submitted: Submitted) -> None:
    client.simulate_post("/orders", json=ORDER)
    client.simulate_post("/orders", json=ORDER)

    assert submitted.times == 2


def test_same_body_twice_is_two_orders(client: TestClient, stored: Callable[[], int]) -> None:
    first = client.simulate_post("/orders", json=ORDER)
    second = client.simulate_post("/orders", json=ORDER)

    assert first.json["order_id"] != second.json["order_id"]
    assert stored() == 2


def test_pending_order_is_shown_with_all_that_is_known(client: TestClient) -> None:
    order_id = client.simulate_post("/orders", json=ORDER).json["order_id"]

    shown = client.simulate_get(f"/orders/{order_id}").json

    assert shown == {
        "order_id": order_id,
        "status": "Pending",
        "user_id": "ada",
        "item_ids": ["tea", "cup"],
        "total_amount": 250.75,
        "seq": shown["seq"],
        "attempt": 0,
        "attempt_limit": None,
        "worker_id": None,
        "created_at": shown["created_at"],
        "queued_at": shown["queued_at"],
        "started_at": None,
        "finished_at": None,
        "retry_at": None,
        "cancel_requested_at": None,
        "last_error": None,
    }


STATES = {
    "status = 'processing', worker_id = 'w', started_at = now(), attempt = 1": "Processing",
    "status = 'retrying', retry_at = now()": "Retrying",
    "status = 'completed', finished_at = now()": "Completed",
    "status = 'failed', finished_at = now()": "Failed",
    "status = 'cancelled', finished_at = now()": "Cancelled",
}


@pytest.mark.parametrize(("columns", "status"), STATES.items())
def test_every_state_is_shown_capitalised(
    client: TestClient, connection: Connection, columns: str, status: str
) -> None:
    order_id = client.simulate_post("/orders", json=ORDER).json["order_id"]
    connection.execute(f"UPDATE orders SET {columns}")

    assert client.simulate_get(f"/orders/{order_id}").json["status"] == status


def test_times_are_shown_in_utc_whatever_the_server_is_set_to(
    client: TestClient, connection: Connection
) -> None:
    connection.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database());"
        " END $$"
    )
    connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, created_at, finished_at)"
        " VALUES (gen_random_uuid(), 'ada', '{tea}', 1, 'completed', '2031-05-01 12:00+00',"
        " '2031-05-01 14:00:00.5+02') RETURNING order_id"
    )
    row = connection.execute("SELECT order_id FROM orders").fetchone()
    assert row is not None

    shown = client.simulate_get(f"/orders/{row[0]}").json

    assert shown["created_at"] == "2031-05-01T12:00:00.000000Z"
    assert shown["finished_at"] == "2031-05-01T12:00:00.500000Z"
    assert datetime.fromisoformat(shown["created_at"]).utcoffset() == timedelta(0)


AMOUNTS = "250.75 0 0.01 0.1 0.29 1.10 100 1e2 999999999999.99 999999999999.01 123456789012.34"


def test_amount_comes_out_to_the_digit_as_it_went_in(client: TestClient) -> None:
    for literal in AMOUNTS.split():
        body = b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": %s}' % literal.encode()
        placed = client.simulate_post("/orders", body=body, headers={"Content-Type": "application/json"})

        text = client.simulate_get(placed.headers["location"]).text

        shown = text.partition('"total_amount":')[2].partition(",")[0]
        assert Decimal(shown) == Decimal(literal)


def test_odd_ids_come_out_as_they_went_in(client: TestClient) -> None:
    items = [
        "a,b",
        '"',
        "it's",
        "☕ 👩‍🚀",
        "{curly}",
        "back\\slash",
        "NULL",
        " padded ",
        "new\nline",
        "%s",
        "x" * 255,
    ]
    placed = client.simulate_post("/orders", json={**ORDER, "user_id": " ada ", "item_ids": items})

    shown = client.simulate_get(placed.headers["location"]).json

    assert shown["item_ids"] == items
    assert shown["user_id"] == " ada "


def test_thousand_items_are_accepted(client: TestClient) -> None:
    items = [f"item {number}" for number in range(1000)]
    placed = client.simulate_post("/orders", json={**ORDER, "item_ids": items})

    assert client.simulate_get(placed.headers["location"]).json["item_ids"] == items


def test_unknown_order_is_404(client: TestClient) -> None:
    missing = uuid4()

    answer = client.simulate_get(f"/orders/{missing}")

    assert answer.status_code == 404
    assert answer.json["type"] == "/problems/order-not-found"
    assert str(missing) in answer.json["detail"]


@pytest.mark.parametrize(
    "order_id",
    ["7", "null", "01a204b7f3e77b5e8b5c7b5a0a036d91", "{01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91}", "%00", "%ff",
     "01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91%0a", "urn:uuid:01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91", "x" * 5000,
     "01a204b7-f3e7-7b5e-8b5c-7b5a0a036d9g", "\u0661" * 8 + "-f3e7-7b5e-8b5c-7b5a0a036d91"],
)  # fmt: skip
def test_order_id_that_is_no_uuid_is_404(offline: TestClient, order_id: str) -> None:
    answer = offline.simulate_get(f"/orders/{order_id}")

    assert answer.status_code == 404
    assert "not a UUID" in answer.json["detail"]


def test_order_id_may_be_written_in_capitals(client: TestClient) -> None:
    order_id = client.simulate_post("/orders", json=ORDER).json["order_id"]

    assert client.simulate_get(f"/orders/{order_id.upper()}").json["order_id"] == order_id


def test_head_answers_as_get_without_a_body(client: TestClient) -> None:
    placed = client.simulate_post("/orders", json=ORDER)

    answer = client.simulate_head(placed.headers["location"])

    assert answer.status_code == 200
    assert answer.content == b""


def test_order_stored_by_sql_is_shown_too(client: TestClient, connection: Connection) -> None:
    row = connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
        " VALUES (gen_random_uuid(), 'ada', '{tea}', 12.5) RETURNING order_id"
    ).fetchone()
    assert row is not None

    assert client.simulate_get(f"/orders/{row[0]}").json["total_amount"] == 12.5


class LostConnection:
    """Stands for a database that goes away between an INSERT and its reply."""

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        raise OutcomeUnknownError("server closed the connection unexpectedly")
        yield


def test_post_that_may_have_been_stored_says_so_and_does_not_invite_a_second_one(
    submitted: Submitted,
) -> None:
    client = TestClient(create_app(LostConnection(), submitted, simulated_seconds=2))  # type: ignore[arg-type]

    answer = client.simulate_post("/orders", json=ORDER)

    assert answer.status_code == 503
    assert answer.json["type"] == "/problems/outcome-unknown"
    assert "may have been placed or not" in answer.json["detail"]
    assert "retry-after" not in answer.headers


def test_get_whose_connection_is_lost_may_be_tried_again(submitted: Submitted) -> None:
    client = TestClient(create_app(LostConnection(), submitted, simulated_seconds=2))  # type: ignore[arg-type]

    answer = client.simulate_get(f"/orders/{uuid4()}")

    assert answer.status_code == 503
    assert answer.json["type"] == "/problems/unavailable"
    assert answer.headers["retry-after"] == "1"
