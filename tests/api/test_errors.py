"""Every error is a problem with type, title, status and detail, whoever raises it."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from falcon.testing import TestClient

from orders_api.app import create_app
from orders_api.requests import MAX_BODY_BYTES
from schema.runtime.connection import Connection
from tests.api.conftest import Submitted

GOOD = json.dumps({"user_id": "ada", "item_ids": ["tea"], "total_amount": 1}).encode()


def assert_problem(answer: Any, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert all(
        isinstance(answer.json[name], str) and answer.json[name] for name in ("type", "title", "detail")
    )


@pytest.mark.parametrize("path", ["/", "/nope", "/orders/1/2", "/metrics/", "/%00", "/%ff"])
def test_unknown_address_is_a_404_problem(offline: TestClient, path: str) -> None:
    answer = offline.simulate_get(path)

    assert_problem(answer, 404)
    assert answer.json["title"] == "Not Found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/orders", "POST"),
        ("DELETE", "/orders", "POST"),
        ("POST", "/metrics", "GET"),
        ("PUT", "/orders/01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91", "GET"),
        ("POST", "/orders/metrics", "GET"),
        ("PATCH", "/healthz", "GET"),
    ],
)
def test_wrong_method_is_a_405_problem_that_names_the_right_ones(
    offline: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = offline.simulate_request(method, path)

    assert_problem(answer, 405)
    assert allowed in answer.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; version=2",
        "application/json, application/json",
        "application/jsonp",
        "application/problem+json",
        "*/*",
        'application/json; charset="utf-8',
    ],
)
def test_wrong_content_type_is_a_415_problem_that_names_the_right_one(
    offline: TestClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    answer = offline.simulate_post("/orders", body=GOOD, headers=headers)

    assert_problem(answer, 415)
    assert "Expected Content-Type: application/json" in answer.json["detail"]


def test_json_in_utf_8_is_accepted_however_it_is_spelled(client: TestClient) -> None:
    for content_type in (
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json ; charset="utf-8"',
    ):
        answer = client.simulate_post("/orders", body=GOOD, headers={"Content-Type": content_type})

        assert answer.status_code == 201


def test_encoded_body_is_a_415_problem(client: TestClient, stored: Callable[[], int]) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    assert_problem(client.simulate_post("/orders", body=GOOD, headers=headers), 415)
    assert stored() == 0


def test_body_past_a_mebibyte_is_a_413_problem_and_stores_nothing(
    client: TestClient, stored: Callable[[], int]
) -> None:
    body = GOOD + b" " * (MAX_BODY_BYTES + 1 - len(GOOD))

    answer = client.simulate_post("/orders", body=body, headers={"Content-Type": "application/json"})

    assert_problem(answer, 413)
    assert "1,048,576 bytes" in answer.json["detail"]
    assert stored() == 0


def test_body_of_a_mebibyte_is_read(client: TestClient) -> None:
    body = GOOD + b" " * (MAX_BODY_BYTES - len(GOOD))

    answer = client.simulate_post("/orders", body=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 201


class Broken:
    """Stands for a database behind which something fails that nobody thought of."""

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        raise ZeroDivisionError("division by zero\nDETAIL: ada's secret tea")
        yield


def test_unexpected_error_is_a_bare_500_whose_cause_is_only_in_the_log(
    submitted: Submitted, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(create_app(Broken(), submitted, simulated_seconds=2))  # type: ignore[arg-type]

    answer = client.simulate_get("/metrics")

    assert_problem(answer, 500)
    assert "division" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.msg == "request_failed"
    assert record.exc_info
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_missing_table_is_a_500_and_not_an_invitation_to_retry(
    client: TestClient, connection: Connection
) -> None:
    connection.execute("ALTER TABLE orders RENAME TO elsewhere")

    answer = client.simulate_get("/metrics")

    assert_problem(answer, 500)
    assert "retry-after" not in answer.headers
    assert "elsewhere" not in answer.text


def test_statement_that_the_server_cancels_is_a_503_and_the_connection_stays_in_use(
    client: TestClient, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    blocker, canceller = connect(), connect()
    with blocker.transaction():
        blocker.execute("LOCK TABLE orders")
        # Cancels from the server's side, as a statement timeout does.
        canceller.execute("SET statement_timeout = 0")
        thread = threading.Thread(
            target=wait_until,
            args=(
                lambda: canceller.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                ).fetchone(),
            ),
        )
        thread.start()
        answer = client.simulate_get("/metrics")
        thread.join()

    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert client.simulate_get("/metrics").status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["without a key", "with a key"])
def test_order_that_a_trigger_drops_is_a_500_and_leaves_nothing_behind(
    client: TestClient,
    connection: Connection,
    submitted: Submitted,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
) -> None:
    connection.execute("""
        CREATE FUNCTION dropped() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER dropped BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION dropped();
    """)

    for _ in range(2):
        answer = client.simulate_post(
            "/orders", body=GOOD, headers={"Content-Type": "application/json", **headers}
        )

        assert_problem(answer, 500)
        assert answer.json["type"] == "/problems/order-not-taken"
        assert not {"location", "retry-after", "idempotent-replayed"} & {*answer.headers}
    assert submitted.times == 0
    assert connection.execute("SELECT FROM idempotency_keys").fetchall() == []
    assert [record.msg for record in caplog.records] == ["order_not_taken"] * 2
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
