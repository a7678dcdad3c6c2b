from typing import Any

import pytest
from falcon.testing import TestClient


@pytest.mark.parametrize(
    "given", ["abc", "01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91", "a.b:c/d+e=f@g_h", "x" * 128]
)
def test_sane_request_id_is_taken_from_the_client(offline: TestClient, given: str) -> None:
    answer = offline.simulate_get("/healthz", headers={"X-Request-ID": given})

    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 129, 'a"b', "é", "a\tb", "{}", "a;b", "a,b"])
def test_odd_request_id_is_replaced(offline: TestClient, given: str) -> None:
    answer = offline.simulate_get("/healthz", headers={"X-Request-ID": given})

    assert len(answer.headers["x-request-id"]) == 32


def test_every_request_without_an_id_gets_one_of_its_own(offline: TestClient) -> None:
    ids = {offline.simulate_get("/healthz").headers["x-request-id"] for _ in range(10)}

    assert len(ids) == 10


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nope", 404), ("DELETE", "/orders", 405), ("POST", "/orders", 415), ("GET", "/orders/7", 404)],
)
def test_errors_carry_the_request_id_too(offline: TestClient, method: str, path: str, status: int) -> None:
    answer = offline.simulate_request(method, path, headers={"X-Request-ID": "abc"})

    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "abc"


def test_event_of_a_placed_order_bears_the_request_id(client: TestClient, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        answer = client.simulate_post(
            "/orders",
            json={"user_id": "ada", "item_ids": ["tea"], "total_amount": 1},
            headers={"X-Request-ID": "abc"},
        )

    (record,) = [record for record in caplog.records if record.msg == "order_submitted"]
    assert record.fields["request_id"] == "abc"
    assert str(record.fields["order_id"]) == answer.json["order_id"]
