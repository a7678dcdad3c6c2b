"""`POST /orders/batch`: all orders of a batch are placed, in their order, or none."""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from falcon.testing import TestClient

from schema.runtime.connection import Connection
from tests.api.conftest import Relay, Submitted

ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "cup"], "total_amount": 250.75}

OWN = (1 << 62) - 1
"""The bits that are an id's own."""


def orders(count: int) -> list[dict[str, Any]]:
    return [{**ORDER, "user_id": f"user {number}"} for number in range(count)]


def post(client: TestClient, body: Any, **headers: str) -> Any:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.simulate_post(
        "/orders/batch", body=sent, headers={"Content-Type": "application/json", **headers}
    )


def test_batch_is_placed_in_its_order(
    client: TestClient, connection: Connection, submitted: Submitted
) -> None:
    answer = post(client, {"orders": orders(1000)})

    assert answer.status_code == 201
    assert answer.json["message"] == "Orders placed successfully"
    rows = connection.execute("SELECT order_id, user_id, status, attempt FROM orders ORDER BY seq").fetchall()
    assert [str(order_id) for order_id, *_ in rows] == answer.json["order_ids"]
    assert [row[1:] for row in rows] == [(f"user {number}", "pending", 0) for number in range(1000)]
    assert submitted.times == 1


def test_ids_are_version_7_and_rise(client: TestClient) -> None:
    ids = [UUID(each) for each in post(client, {"orders": orders(100)}).json["order_ids"]]

    assert {each.version for each in ids} == {7}
    assert ids == sorted(set(ids))


def test_no_id_of_a_batch_gives_its_neighbours_away(client: TestClient) -> None:
    ids = [UUID(each).int & OWN for each in post(client, {"orders": orders(1000)}).json["order_ids"]]

    assert len({abs(later - earlier) >> 32 for earlier, later in pairwise(ids)}) > 990


@pytest.mark.parametrize(
    "items",
    [["tea"], ['"', "\\", "{}", ",", "NULL", "null", "a b", "\t", "\n", "\\N", "\\.", "👩", "'", "%s"]],
)
def test_every_text_comes_back_as_it_was_sent(client: TestClient, items: list[str]) -> None:
    items = [item for item in items if item.strip()]
    batch = [{**ORDER, "user_id": item, "item_ids": items} for item in items]

    answer = post(client, {"orders": batch})

    stored = [client.simulate_get(f"/orders/{each}").json for each in answer.json["order_ids"]]
    assert [(each["user_id"], each["item_ids"]) for each in stored] == [(item, items) for item in items]


@pytest.mark.parametrize("literal", ["0", "-0.0", "0.1", "250.75", "999999999999.99", "1e2"])
def test_amounts_stay_exact(client: TestClient, connection: Connection, literal: str) -> None:
    body = b'{"orders": [{"user_id": "ada", "item_ids": ["tea"], "total_amount": %s}]}' % literal.encode()

    assert post(client, body).status_code == 201

    row = connection.execute("SELECT total_amount = %s::numeric FROM orders", (literal,)).fetchone()
    assert row == (True,)


def test_one_wrong_order_refuses_the_batch_and_is_named(
    client: TestClient, stored: Callable[[], int], submitted: Submitted
) -> None:
    batch = orders(1000)
    batch[7] = {"user_id": "ada", "item_ids": ["tea", ""], "total_amount": -1}

    answer = post(client, {"orders": batch})

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "/problems/invalid-order"
    fields = {error["field"] for error in answer.json["errors"]}
    assert fields == {"orders[7].item_ids[1]", "orders[7].total_amount"}
    assert "orders[7].total_amount is -1, expected a number" in answer.json["detail"]
    assert stored() == 0
    assert submitted.times == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b"[]", "the body is an array"),
        (b"{", "the body is not JSON"),
        (b'{"orders": [], "orders": []}', '"orders" appears more than once'),
    ],
)
def test_body_that_is_no_object_is_a_400_problem(client: TestClient, body: bytes, said: str) -> None:
    answer = post(client, body)

    assert answer.status_code == 400
    assert answer.json["type"] == "/problems/not-json"
    assert said in answer.json["detail"]
    assert 'expected a JSON object {"orders": [...]} with 1 to 10,000 orders' in answer.json["detail"] or (
        "expected each key once" in answer.json["detail"]
    )


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "orders", "is missing"),
        (ORDER, "orders", "is missing"),
        ({"orders": None}, "orders", "is null"),
        ({"orders": ORDER}, "orders", "is an object"),
        ({"orders": []}, "orders", "has 0 orders"),
        ({"orders": [{}] * 10_001}, "orders", "has 10,001 orders"),
        ({"orders": [ORDER], "order": 1}, '"order"', "is no field of a batch"),
        ({"orders": [ORDER, 3]}, "orders[1]", "is a number, expected an object"),
        ({"orders": [ORDER, [ORDER]]}, "orders[1]", "is an array, expected an object"),
        ({"orders": [{**ORDER, "status": "completed"}]}, 'orders[0]."status"', "is no field of an order"),
    ],
)
def test_body_that_is_no_batch_is_a_400_problem(
    client: TestClient, stored: Callable[[], int], body: Any, field: str, said: str
) -> None:
    answer = post(client, body)

    assert answer.status_code == 400
    assert field in {error["field"] for error in answer.json["errors"]}
    assert f"{field} {said}" in answer.json["detail"]
    assert stored() == 0


def test_of_many_wrong_fields_the_first_twenty_are_named_and_the_others_counted(client: TestClient) -> None:
    answer = post(client, {"orders": [{}] * 10_000})

    assert len(answer.json["errors"]) == 20
    assert answer.json["detail"].endswith("and 29980 more")


def test_batch_of_the_greatest_size_is_placed(client: TestClient, stored: Callable[[], int]) -> None:
    answer = post(client, {"orders": orders(10_000)})

    assert answer.status_code == 201
    assert stored() == len(set(answer.json["order_ids"])) == 10_000


def test_batch_may_have_eight_megabytes_and_no_more(client: TestClient, stored: Callable[[], int]) -> None:
    order = json.dumps({**ORDER, "item_ids": ["x" * 255] * 30}).encode()
    head, foot = b'{"orders": [' + order, b"]}"
    body = head + (b"," + order) * ((8 * 1024 * 1024 - len(head + foot)) // (len(order) + 1)) + foot

    assert post(client, body.ljust(8 * 1024 * 1024 + 1)).status_code == 413
    assert stored() == 0

    assert post(client, body.ljust(8 * 1024 * 1024)).status_code == 201


def test_other_methods_are_refused(client: TestClient) -> None:
    answer = client.simulate_get("/orders/batch")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST, OPTIONS"


def test_replay_is_the_same_answer_and_says_that_it_is_one(
    client: TestClient, stored: Callable[[], int], submitted: Submitted, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "orders_api"):
        answers = [post(client, {"orders": orders(100)}, **{"Idempotency-Key": "k"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert stored() == 100
    assert submitted.times == 1
    assert [record.msg for record in caplog.records] == ["batch_submitted", "batch_replayed"]


@pytest.mark.parametrize(
    "other", [orders(2), orders(4), list(reversed(orders(3))), [*orders(2), {**ORDER, "total_amount": 1}]]
)
def test_key_of_another_batch_is_a_422_problem_and_places_nothing(
    client: TestClient, stored: Callable[[], int], other: list[dict[str, Any]]
) -> None:
    post(client, {"orders": orders(3)}, **{"Idempotency-Key": "k"})

    answer = post(client, {"orders": other}, **{"Idempotency-Key": "k"})

    assert answer.status_code == 422
    assert answer.json["type"] == "/problems/idempotency-key-reused"
    assert stored() == 3


def test_replay_names_every_order_of_the_batch(client: TestClient, connection: Connection) -> None:
    body = {"orders": orders(10_000)}
    first = post(client, body, **{"Idempotency-Key": "k"})

    again = post(client, body, **{"Idempotency-Key": "k"})

    stored = connection.execute("SELECT order_id::text FROM orders ORDER BY seq").fetchall()
    assert "idempotent-replayed" in again.headers
    assert again.json["order_ids"] == first.json["order_ids"] == [order_id for (order_id,) in stored]


def counted_on(count: int) -> tuple[UUID, list[str]]:
    """Return the first of so many ids as they were before revision 0006, and all of them."""
    first = UUID("01a204b7-f3e7-7b5e-8b5c-7b5a0a036d91")
    return first, [str(UUID(int=first.int + place)) for place in range(count)]


def hash_of_before(orders: list[dict[str, Any]]) -> bytes:
    fields = [(each["user_id"], each["item_ids"], f"{each['total_amount']:.2f}") for each in orders]
    return hashlib.sha256(json.dumps(fields).encode()).digest()


def test_batch_that_an_older_release_placed_is_replayed_as_it_counted(
    client: TestClient, connection: Connection, stored: Callable[[], int]
) -> None:
    first, ids = counted_on(3)
    connection.execute(
        "INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash) VALUES ('k', %s, %s)",
        [first, hash_of_before(orders(3))],
    )

    answer = post(client, {"orders": orders(3)}, **{"Idempotency-Key": "k"})
    other = post(client, {"orders": orders(4)}, **{"Idempotency-Key": "k"})

    assert answer.json["order_ids"] == ids
    assert other.status_code == 422
    assert stored() == 0


def test_older_release_refuses_to_replay_a_batch_whose_ids_it_would_count(
    client: TestClient, connection: Connection
) -> None:
    post(client, {"orders": orders(3)}, **{"Idempotency-Key": "k"})

    row = connection.execute("SELECT order_hash FROM idempotency_keys").fetchone()

    assert row != (hash_of_before(orders(3)),)


def test_key_of_an_order_is_not_that_of_a_batch_with_it(
    client: TestClient, stored: Callable[[], int]
) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    assert client.simulate_post("/orders", body=json.dumps(ORDER), headers=headers).status_code == 201

    assert post(client, {"orders": [ORDER]}, **{"Idempotency-Key": "k"}).status_code == 422
    assert stored() == 1


def test_refused_batch_leaves_its_key_unused(client: TestClient) -> None:
    assert post(client, {"orders": [{}]}, **{"Idempotency-Key": "k"}).status_code == 400

    mended = post(client, {"orders": [ORDER]}, **{"Idempotency-Key": "k"})

    assert mended.status_code == 201
    assert "idempotent-replayed" not in mended.headers


@pytest.mark.parametrize("key", [None, "k"])
def test_batch_of_which_a_trigger_drops_one_is_an_error_and_leaves_nothing(
    client: TestClient, connection: Connection, key: str | None
) -> None:
    connection.execute("""
        CREATE FUNCTION users_own() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RETURN CASE WHEN NEW.user_id <> 'user 1' THEN NEW END; END $$;
        CREATE TRIGGER users_own BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION users_own();
    """)
    try:
        answer = post(client, {"orders": orders(3)}, **({"Idempotency-Key": key} if key else {}))
    finally:
        connection.execute("DROP FUNCTION users_own CASCADE")

    assert answer.status_code == 500
    assert answer.json["type"] == "/problems/order-not-taken"
    rows = connection.execute(
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM idempotency_keys)"
    ).fetchone()
    assert rows == (0, 0)


def test_offline_batch_is_a_503_problem(offline: TestClient) -> None:
    assert post(offline, {"orders": [ORDER]}).status_code == 503


def test_lost_connection_leaves_the_outcome_unknown_and_a_key_tells(
    start_api: Callable[..., Any], relay: Relay, stored: Callable[[], int], wait_until: Callable[..., Any]
) -> None:
    api = start_api(relay.url)
    wait_until(lambda: api.call("GET", "/readyz").status == 200)
    relay.cut()
    # The pool has not noticed yet, or has a new connection already: either way the key keeps it safe.
    sent = {"orders": orders(50)}
    answer = wait_until(
        lambda: (
            (found := api.call("POST", "/orders/batch", sent, {"Idempotency-Key": "k"})).status == 201
            and found
        )
    )

    assert len(answer.json["order_ids"]) == stored() == 50
